"""A server that takes a plan's steps as the real one would, without models: what it has is a value."""

from typing import Any

from msgspec.structs import replace

from clipper.api.schemas import Application, Key
from clipper.cli.manifest.manifest import WantedApplication
from clipper.cli.manifest.plan import Packed, deployment_of, fingerprint, wanted_settings
from clipper.cli.manifest.steps import (
    Actual,
    ActualModel,
    ActualVersion,
    ChangeApplication,
    CreateApplication,
    Delete,
    Deploy,
    LinkCall,
    MakeCurrent,
    Plan,
    PutKey,
    Scale,
    Step,
)
from clipper.settings.application import Configured, Link

FRESH_TYPE = "float64[4]"


def linked(links: tuple[Link, ...], call: LinkCall) -> tuple[Link, ...]:
    """Does the same as the server's link and unlink: see ``supervisor/operations/applications.py``."""
    model, _, version = call.name.partition(":")
    own = [link for link in links if link.model == model]
    if version:
        target = next((link for link in own if link.version == version), None)
    elif len(own) == 1:
        target = own[0]
    else:
        target = next((link for link in own if link.version is None), None)
    if call.link is None:
        assert target is not None, f"{call.name} is not linked"
        return tuple(link for link in links if link is not target)
    new = replace(call.link, version=version or call.link.version)
    after = tuple(new if link is target else link for link in links) if target else (*links, new)
    assert len({(link.model, link.version) for link in after}) == len(after), "two links are the same"
    return after


class PretendServer:
    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._models: dict[str, ActualModel] = {}
        self._applications: dict[str, Application] = {}
        self._keys: dict[str, Key] = {}

    @property
    def actual(self) -> Actual:
        return Actual(dict(self._models), dict(self._applications), dict(self._keys))

    def run(self, plan: Plan) -> None:
        for step in plan.steps:
            self._take(step)

    def _take(self, step: Step) -> None:
        match step:
            case Deploy():
                self._deploy(step)
            case MakeCurrent():
                self._make_current(step.model, step.version)
            case Scale():
                found = self._models[step.model].versions[step.version]
                self._put_version(step.model, step.version, replace(found.deployment, replicas=step.replicas))
            case CreateApplication():
                self._create(step.application)
            case ChangeApplication():
                self._change(step)
            case PutKey():
                key, limits = step.key, {"max_in_flight": None, "max_per_second": None, **step.key.limits}
                self._keys[key.name] = Key(key.name, 0.0, key.applications, **limits, fingerprint=fingerprint(key.key))
            case Delete():
                self._delete(step)

    def _deploy(self, step: Deploy) -> None:
        versions = self._models[step.model].versions if step.model in self._models else {}
        name = step.version.name or str(max((int(one) for one in versions if one.isdecimal()), default=0) + 1)
        assert name not in versions, "a version does not change"
        made = replace(deployment_of(step.version, self._packed), version=name, make_current=step.make_current)
        self._put_version(step.model, name, made)
        if step.make_current:
            self._make_current(step.model, name)

    def _put_version(self, model: str, name: str, deployment: Any) -> None:
        found = self._models.get(model, ActualModel(None, {}))
        versions = {**found.versions, name: ActualVersion("ready", deployment)}
        self._models[model] = ActualModel(found.current, versions)

    def _make_current(self, model: str, name: str) -> None:
        found = self._models[model]
        version = found.versions[name]
        kept = ActualVersion(version.state, replace(version.deployment, make_current=True))
        self._models[model] = ActualModel(name, {**found.versions, name: kept})

    def _create(self, wanted: WantedApplication) -> None:
        for model in wanted.models:
            assert model in self._models, "it links a model that is not there"
        values = wanted_settings(wanted, self._packed.codes.get(wanted.name))
        self._applications[wanted.name] = Application(
            name=wanted.name,
            input_type=wanted.settings.get("input_type", FRESH_TYPE),
            links=wanted.links,
            **self._fields(values),
        )

    def _fields(self, values: dict[str, Any]) -> dict[str, Any]:
        for kind in ("policy", "loss"):
            if kind in values:
                values |= {kind: Configured(values[kind], values.pop(f"{kind}_parameters", {}))}
        return values

    def _change(self, step: ChangeApplication) -> None:
        found = self._applications[step.application.name]
        for call in step.links:
            found = replace(found, links=linked(found.links, call))
        changed = self._fields(dict(step.settings))
        code = self._packed.codes.get(step.application.name) if {"policy", "loss"} & changed.keys() else found.code
        self._applications[step.application.name] = replace(found, **changed, code=code)

    def _delete(self, step: Delete) -> None:
        match step.kind:
            case "application":
                del self._applications[step.name]
            case "key":
                del self._keys[step.name]
            case "model":
                assert not any(link.model == step.name for one in self._applications.values() for link in one.links)
                del self._models[step.name]
            case "version":
                found = self._models[step.name]
                assert step.version != found.current
                left = {name: version for name, version in found.versions.items() if name != step.version}
                self._models[step.name] = ActualModel(found.current, left)


def nothing(plan: Plan) -> bool:
    return not plan.steps and not plan.obstacles
