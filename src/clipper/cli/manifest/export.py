"""Writes the file of a server: applied to the same server, it changes nothing."""

from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from clipper.api.schemas import Application
from clipper.cli.manifest.document import START, Fault, Scalar, json_value
from clipper.cli.manifest.keys import APPLICATION, ARTIFACT
from clipper.cli.manifest.plan import OF_BATCHING, flat_settings
from clipper.cli.manifest.steps import Actual
from clipper.learning.policies.by_name import default_half_life
from clipper.settings.application import ApplicationSettings, Link
from clipper.settings.fields import settings_of
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Deployment, ManagerName

_NOT_WRITTEN = frozenset({"version", "make_current"})


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of a server. ``document`` is its content; ``remarks`` are comments at its top."""

    document: dict[str, Any]
    remarks: tuple[str, ...]

    def artifacts(self) -> list[str]:
        versions = [
            version
            for model in self.document["models"].values()
            for version in model.get("versions", {"": model}).values()
        ]
        codes = [one["code"] for one in self.document["applications"].values() if "code" in one]
        return sorted({*codes, *(version["artifact"]["sha256"] for version in versions)})

    def text(self, schema: str) -> str:
        """Write the file's text. ``schema`` is the place where an editor finds the JSON schema."""
        head = "".join(f"# {line}\n" for line in (f"yaml-language-server: $schema={schema}", *self.remarks))
        return head + str(yaml.dump(self.document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # it has no types
    """Writes YAML without aliases, which the file may not have, and no text that would be read as another type."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, text: str) -> Any:
        faults: list[Fault] = []
        is_read_as_text = json_value(Scalar(text, True, START), faults, "") == text and not faults
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_read_as_text else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def exported(actual: Actual) -> Exported:
    models, remarks = {}, []
    for name in sorted(actual.models):
        if actual.models[name].current is None:
            remarks.append(f"The model {name} is left out: it has no version that is ready. --prune would delete it.")
        else:
            models[name] = _model(name, actual)
    applications = {name: _application(one) for name, one in sorted(actual.applications.items())}
    if actual.keys:
        remarks.append(
            f"The keys {', '.join(sorted(actual.keys))} are left out: the server does not know their values."
        )
    return Exported({"models": models, "applications": applications}, tuple(remarks))


def _model(name: str, actual: Actual) -> dict[str, Any]:
    """Write a model: a single version without its name, since the next will have another, unless a link pins it."""
    found, lasting = actual.models[name], actual.lasting(name)
    versions = {version: _version(found.versions[version].deployment, actual.manager) for version in lasting}
    if len(versions) == 1 and not actual.pinned(name):
        return next(iter(versions.values()))
    return {"current": found.current, "versions": versions}


def _version(deployment: Deployment, manager: ManagerName) -> dict[str, Any]:
    """Write a version. ``manager`` runs the versions that name none."""
    sources = {one: getattr(deployment, "artifact" if one == "sha256" else one) for one in ARTIFACT}
    written: dict[str, Any] = {"artifact": {key: _plain(value) for key, value in sources.items() if value}}
    for one in settings_of(Deployment):
        value = getattr(deployment.batching if one.keyword in OF_BATCHING else deployment, one.name)
        default = manager if one.keyword == "manager" else one.default
        if one.keyword not in _NOT_WRITTEN and value != default:
            written[one.keyword] = _plain(value)
    return written


def _application(application: Application) -> dict[str, Any]:
    written: dict[str, Any] = {"links": [_link(link) for link in application.links]} if application.links else {}
    values = flat_settings(application) | {"input_type": application.input_type}
    defaults = flat_settings(ApplicationSettings(half_life=default_half_life(application.policy.name)))
    # Parameters are written with the name of their policy or loss, even if it is the default.
    named = {kind for kind in ("policy", "loss") if values[f"{kind}_parameters"]}
    for keyword in APPLICATION:
        value = values.get(keyword)
        if keyword in named or value != defaults.get(keyword):
            written[keyword] = _plain(value)
    if application.steps:
        written["steps"] = _plain(application.steps)
    return written


def _link(link: Link) -> str | dict[str, Any]:
    if not link.shadow and link.cost is None:
        return link.target
    return {name: value for name, value in msgspec.structs.asdict(link).items() if value not in (None, False)}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, ReplicaRange) else msgspec.to_builtins(value)
