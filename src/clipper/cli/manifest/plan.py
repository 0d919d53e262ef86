"""Plans the steps that bring a server to the state that a file describes, in an order in which each step is safe."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from clipper.api.schemas import FINGERPRINT_LENGTH, Application
from clipper.cli.manifest.manifest import Manifest, WantedApplication, WantedKey, WantedModel, WantedVersion
from clipper.cli.manifest.steps import (
    Actual,
    ActualModel,
    Change,
    ChangeApplication,
    CreateApplication,
    Delete,
    Deploy,
    MakeCurrent,
    Obstacle,
    Plan,
    PutKey,
    Scale,
    Step,
    link_calls,
    shown,
)
from clipper.client.models import with_settings
from clipper.client.packaging.artifact import LOADING
from clipper.learning.policies.by_name import default_half_life
from clipper.settings.application import ApplicationSettings, Configured, Selection, configured
from clipper.settings.fields import settings_of
from clipper.settings.variables import shown_values
from clipper.settings.version import Batching, Deployment
from clipper.values.records import parse_type

# The fields of a deployment that are no settings: the artifact, and how it is loaded.
_PACKED = ("artifact", *LOADING)
# Settings in which equal versions may differ: the name, the number of replicas, and whether the version is current.
_NOT_COMPARED = frozenset({"version", "replicas", "make_current"})
OF_BATCHING = frozenset(one.keyword for one in settings_of(Batching))


@dataclass(frozen=True, slots=True)
class Packed:
    """The results of packing the file's models and code.

    Attributes:
        versions: the fields of each version's deployment, by ``WantedVersion.path``; the manager is filled in.
        codes: the digest of each application's own code, by the application's name.
    """

    versions: Mapping[str, Mapping[str, Any]]
    codes: Mapping[str, str]


def plan(wanted: Manifest, packed: Packed, actual: Actual, *, prune: bool = False) -> Plan:
    """Make a plan. ``prune``: delete what the file does not name, in the sections that it has."""
    obstacles: list[Obstacle] = []
    models = {
        model.name: model_steps(model, packed, actual.models.get(model.name), obstacles)
        for model in wanted.models or ()
    }
    deletions = _deletions(wanted, actual)
    creations, changes = [], []
    # A pipeline needs the applications of its steps to exist.
    for application in sorted(wanted.applications or (), key=lambda one: bool(one.steps)):
        asked = {step.application or f"{application.name}.{name}" for name, step in application.steps.items()}
        lacking = _lacking("it links model", application.models, actual.models, wanted.models, prune=prune)
        lacking += _lacking("a step asks application", asked, actual.applications, wanted.applications, prune=prune)
        if lacking:
            obstacles.append(Obstacle(f"application {application.name}", lacking[0]))
            continue
        found = actual.applications.get(application.name)
        code = packed.codes.get(application.name)
        if found is None:
            subject, needs = f"application {application.name}", application.models
            made = CreateApplication(subject=subject, does="creates it", needs=needs, application=application)
            creations.append(made)
        elif (change := _change(application, code, found, obstacles)) is not None:
            changes.append(change)
    keys = [step for key in wanted.keys or () if (step := _key_step(key, actual)) is not None]
    return Plan(
        {name: steps for name, steps in models.items() if steps},
        # A key needs its applications to exist; an application that requires keys from now on needs its keys.
        (*creations, *keys, *changes),
        deletions if prune else (),
        tuple(obstacles),
        () if prune else tuple(step.subject for step in deletions),
    )


def deployment_of(version: WantedVersion, packed: Packed) -> Deployment:
    """Return the deployment that makes a version, as the server shows it."""
    options: Any = {name: value for name, value in version.settings.items() if (name, value) != ("manager", None)}
    made = with_settings(Deployment(**packed.versions[version.path]), options)
    declared, outputs = made.input_type, made.output_type
    return replace(
        made,
        input_type=None if declared is None else str(parse_type(declared)),
        output_type=None if outputs is None else str(parse_type(outputs)),
        env=shown_values(made.env),
    )


def fingerprint(key: str) -> str:
    """Return the part of a key's digest that the server shows."""
    return hashlib.sha256(key.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def model_steps(
    wanted: WantedModel, packed: Packed, actual: ActualModel | None, obstacles: list[Obstacle]
) -> tuple[Step, ...]:
    """Return the steps of a model, in order. Impossible steps go into ``obstacles``."""
    found = actual or ActualModel(None, {})
    return tuple(
        step
        for version in wanted.versions
        for step in _version_steps(
            wanted.name, version, deployment_of(version, packed), found, version is wanted.versions[-1], obstacles
        )
    )


def _version_steps(
    model: str,
    version: WantedVersion,
    made: Deployment,
    actual: ActualModel,
    is_current: bool,
    obstacles: list[Obstacle],
) -> Iterable[Step]:
    name = version.name or _equal_version(made, actual)
    subject = f"model {model}" if version.name is None else f"model {model}:{version.name}"
    there = actual.versions.get(name) if name is not None else None
    if there is None or name is None or there.state == "failed":
        current = actual.versions.get(actual.current or "")
        changes = _differences(made, current.deployment) if current is not None and is_current else []
        does = "deploys a version" + ("" if is_current else " that is not current")
        yield Deploy(
            subject=subject, does=does, changes=tuple(changes), model=model, version=version, digest=made.artifact,
            make_current=is_current,
        )  # fmt: skip
        return
    if differing := _differences(made, there.deployment):
        changed = "; ".join(map(str, differing))
        reason = f"version {name} exists and is another ({changed}): a version does not change, so give it a new name"
        obstacles.append(Obstacle(subject, reason, model))
        return
    if is_current and actual.current != name and there.stopped is not None:
        reason = (
            f"the file describes version {name}, which was stopped ({there.stopped}): describe another version, or let "
            f"this one answer again: clipper model rollback {model} --to {name}"
        )
        obstacles.append(Obstacle(subject, reason, model))
        return
    if is_current and actual.current != name:
        old = UNSET if actual.current is None else actual.current
        yield MakeCurrent(
            subject=subject, does=f"makes version {name} current", changes=(Change("current", old, name),),
            model=model, version=name,
        )  # fmt: skip
    if made.replicas != there.deployment.replicas:
        scaled = Change("replicas", there.deployment.replicas, made.replicas)
        yield Scale(
            subject=subject, does=f"scales version {name}", changes=(scaled,), model=model, version=name,
            replicas=made.replicas, start_timeout_s=made.start_timeout_s,
        )  # fmt: skip


def _equal_version(made: Deployment, actual: ActualModel) -> str | None:
    """Return the current version if it equals the wanted one, else the latest version that does."""
    names = [*actual.versions, *([] if actual.current is None else [actual.current])]
    equal = [
        name
        for name in names
        if (there := actual.versions.get(name)) is not None
        and there.state != "failed"
        and not _differences(made, there.deployment)
    ]
    return equal[-1] if equal else None


def _differences(made: Deployment, there: Deployment) -> list[Change]:
    new, old = _flat_deployment(made), _flat_deployment(there)
    return [Change(name, old[name], value) for name, value in new.items() if not _same(old[name], value)]


def _flat_deployment(deployment: Deployment) -> dict[str, Any]:
    """Return the values that equal versions have in common, by keyword."""
    found = {name: getattr(deployment, name) for name in _PACKED}
    for one in settings_of(Deployment):
        if one.keyword not in _NOT_COMPARED:
            owner = deployment.batching if one.keyword in OF_BATCHING else deployment
            found[one.keyword] = getattr(owner, one.name)
    return found


def _lacking(
    needs: str,
    asked: Collection[str],
    there: Collection[str],
    named: Sequence[WantedApplication | WantedModel] | None,
    *,
    prune: bool,
) -> list[str]:
    """Return why each model or application that is asked will not be there. ``needs`` begins the sentence."""
    return [
        f"{needs} {name}, which "
        + ("the file does not name and --prune removes" if name in there else "neither the file nor the server has")
        for name in sorted({*asked} - {one.name for one in named or ()})
        if name not in there or (prune and named is not None)
    ]


def _change(
    wanted: WantedApplication, code: str | None, actual: Application, obstacles: list[Obstacle]
) -> ChangeApplication | None:
    subject, given = f"application {wanted.name}", wanted.settings
    declared = given.get("input_type")
    if declared is not None and str(parse_type(declared)) != actual.input_type:
        text = f"its inputs are {actual.input_type}, and cannot become {declared}: delete it first"
        obstacles.append(Obstacle(subject, text))
        return None
    if actual.default_output is not UNSET and "default_output" not in given:
        text = f"its default_output is {shown(actual.default_output)} and cannot be removed: give one in the file"
        obstacles.append(Obstacle(subject, text))
        return None
    new, old = wanted_settings(wanted, code), flat_settings(actual)
    changes = [Change(name, old[name], value) for name, value in new.items() if not _same(old[name], value)]
    settings = {change.name: change.new for change in changes if change.name != "code"}
    names = {change.name for change in changes}
    for kind in ("policy", "loss"):
        if names & {kind, f"{kind}_parameters"} or ("code" in names and ":" in new[kind]):
            settings |= {name: new[name] for name in (kind, f"{kind}_parameters")}
    if "policy" in names:
        # Otherwise the server would choose values that suit the new policy.
        settings |= {name: new[name] for name in ("half_life", "features")}
    calls = tuple(link_calls(actual.links, wanted.links))
    if calls:
        changes.append(Change("links", list(map(str, actual.links)), list(map(str, wanted.links))))
    if not changes:
        return None
    return ChangeApplication(
        subject=subject, does="changes it", changes=tuple(changes), needs=wanted.models, application=wanted,
        settings=settings, links=calls,
    )  # fmt: skip


def wanted_settings(wanted: WantedApplication, code: str | None) -> dict[str, Any]:
    """Return all settings of an application by keyword; settings that the file does not give have their defaults."""
    given = {name: value for name, value in wanted.settings.items() if name not in ("input_type", "code")}
    given = {"policy": Selection().policy, "loss": Selection().loss} | given
    values = {"half_life": default_half_life(given["policy"])} | configured(given) | {"code": code}
    return flat_settings(ApplicationSettings(**values))


def flat_settings(settings: ApplicationSettings) -> dict[str, Any]:
    """Return an application's settings by keyword, and the digest of its own code."""
    values = {one.keyword: getattr(settings, one.name) for one in settings_of(ApplicationSettings)}
    for kind in ("policy", "loss"):
        configured = values[kind] if isinstance(values[kind], Configured) else Configured(values[kind])
        values |= {kind: configured.name, f"{kind}_parameters": configured.parameters}
    return values | {"code": settings.code}


def _key_step(wanted: WantedKey, actual: Actual) -> PutKey | None:
    limits = {"max_in_flight": None, "max_per_second": None} | dict(wanted.limits)
    found = actual.keys.get(wanted.name)
    if found is None:
        return PutKey(subject=f"key {wanted.name}", does="makes it", key=wanted)
    # Older servers do not report the fingerprint, and others report it only to an admin.
    old = "the old one" if found.fingerprint else "not shown to this token"
    changes = [] if found.fingerprint == fingerprint(wanted.key) else [Change("key", old, "the new one")]
    new = {"applications": wanted.applications, **limits}
    changes += [
        Change(name, old, value) for name, value in new.items() if not _same(old := getattr(found, name), value)
    ]
    if not changes:
        return None
    return PutKey(subject=f"key {wanted.name}", does="changes it", changes=tuple(changes), key=wanted)


def _deletions(wanted: Manifest, actual: Actual) -> tuple[Delete, ...]:
    """Return the deletions of what the file does not name: pipelines before the applications that they ask, and
    applications before the models that they link."""
    applications = _others("application", actual.applications, wanted.applications)
    return (
        *_others("key", actual.keys, wanted.keys, does="revokes it"),
        *sorted(applications, key=lambda step: not actual.applications[step.name].steps),
        *(step for model in wanted.models or () for step in _version_deletions(model, actual)),
        *_others("model", actual.models, wanted.models),
    )


def _version_deletions(model: WantedModel, actual: Actual) -> Iterable[Delete]:
    """Return the deletions of versions that run without being current, and that the file does not name."""
    if model.name not in actual.models:
        return
    named = {version.name for version in model.versions}
    for name in actual.lasting(model.name):
        if name != actual.models[model.name].current and name not in named and None not in named:
            yield Delete(
                subject=f"model {model.name}:{name}", does="deletes it", kind="version", name=model.name, version=name
            )


def _others(
    kind: Literal["key", "application", "model"],
    there: Mapping[str, object],
    named: Sequence[WantedKey | WantedApplication | WantedModel] | None,
    does: str = "deletes it",
) -> list[Delete]:
    """Return the deletions of what the file does not name; none if the file has no such section."""
    names = sorted(there.keys() - {one.name for one in named}) if named is not None else ()
    return [Delete(subject=f"{kind} {name}", does=does, kind=kind, name=name) for name in names]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; a number is the same with and without a fraction of zero."""
    if one is UNSET or other is UNSET:
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other and isinstance(one, bool) == isinstance(other, bool)
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
