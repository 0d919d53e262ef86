"""The state of a server, as far as a file can describe it, and the steps that bring it to the file's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from clipper.api.schemas import Application, Key, ShownState
from clipper.cli.manifest.manifest import WantedApplication, WantedKey, WantedVersion
from clipper.settings.application import Link
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Deployment, ManagerName


@dataclass(frozen=True, slots=True)
class LinkCall:
    """A call of ``Clipper.link`` for ``name``, ``MODEL`` or ``MODEL:VERSION``; ``unlink`` if ``link`` is None."""

    name: str
    link: Link | None


def link_calls(actual: Sequence[Link], wanted: Sequence[Link]) -> list[LinkCall]:
    """Return the calls that change a model's links, in order.

    A call for ``MODEL`` sets the only link of a model, or the link that follows the current version if there are
    several. A call for ``MODEL:VERSION`` sets the link to that version, beside the others.
    """
    calls: list[LinkCall] = []
    for model in dict.fromkeys(link.model for link in (*wanted, *actual)):
        before = {link.version: link for link in actual if link.model == model}
        after = {link.version: link for link in wanted if link.model == model}
        if len(before) == len(after) == 1:
            # The same link, with another version or other options: it is replaced, whatever its version.
            if before != after:
                calls.append(LinkCall(model, next(iter(after.values()))))
            continue
        if None in after and None not in before and len(before) == 1:
            # A call for MODEL would replace the only link: it is made first, and that link is made again after it.
            calls.append(LinkCall(model, after[None]))
            before = {None: after[None]}
        # The following link is made first: later it would take the place of a pinned link that is alone.
        for version, link in sorted(after.items(), key=lambda item: item[0] is not None):
            if before.get(version) != link:
                calls.append(LinkCall(link.target, link))
        gone = [link for version, link in before.items() if version not in after]
        # The following link is removed first: later MODEL would mean a pinned link that is alone.
        calls += [LinkCall(link.target, None) for link in sorted(gone, key=lambda link: link.version is not None)]
    return calls


# Characters of a value in a line.
_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Change:
    """A setting's old and new value. ``UNSET`` means that there is none."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {shown(self.old)} → {shown(self.new)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a plan.

    Attributes:
        subject: the thing that it changes, such as ``model digits``.
        does: the change, such as ``deploys a version``.
        needs: the models that have to be as the file says before it.
    """

    subject: str
    does: str
    changes: tuple[Change, ...] = ()
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(Step):
    model: str
    version: WantedVersion
    digest: str
    make_current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeCurrent(Step):
    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Step):
    """A change of the number of replicas. ``start_timeout_s`` is how long a new replica may take to start."""

    model: str
    version: str
    replicas: int | ReplicaRange
    start_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApplication(Step):
    application: WantedApplication


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeApplication(Step):
    """A change of an application. ``settings`` are keywords of ``Clipper.change_application``."""

    application: WantedApplication
    settings: Mapping[str, Any]
    links: tuple[LinkCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PutKey(Step):
    key: WantedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Step):
    kind: Literal["application", "model", "version", "key"]
    name: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the file that no call can bring about. ``model`` is the model that causes it, if any."""

    subject: str
    reason: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan to bring a server to the file's state.

    Attributes:
        models: the steps of each model; models may be done at the same time.
        others: steps to do one after the other, once those of all models are done.
        deletions: steps to do last, and only if everything else was done.
        unnamed: things that the file does not name, and that stay.
    """

    models: Mapping[str, tuple[Step, ...]]
    others: tuple[Step, ...]
    deletions: tuple[Delete, ...]
    obstacles: tuple[Obstacle, ...]
    unnamed: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return (*(step for steps in self.models.values() for step in steps), *self.others, *self.deletions)


def shown(value: Any) -> str:
    if value is UNSET or value is None:
        return "none"
    if isinstance(value, ReplicaRange):
        return str(value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"


@dataclass(frozen=True, slots=True)
class ActualVersion:
    """A version on the server.

    ``deployment`` would make the version again; its ``make_current`` is False if the version runs without being
    current. ``stopped`` is why a guardrail stopped it, as in the API's ``Version``.
    """

    state: ShownState
    deployment: Deployment
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class ActualModel:
    """A model on the server. ``versions`` are in the order in which they were deployed."""

    current: str | None
    versions: Mapping[str, ActualVersion]


@dataclass(frozen=True, slots=True)
class Actual:
    """Models, applications and keys by name. ``manager`` runs the versions that name none."""

    models: Mapping[str, ActualModel] = field(default_factory=dict)
    applications: Mapping[str, Application] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    manager: ManagerName = "local"

    def pinned(self, model: str) -> frozenset[str]:
        """Return the versions of a model that applications link by name."""
        links = (link for application in self.applications.values() for link in application.links)
        return frozenset(link.version for link in links if link.model == model and link.version is not None)

    def lasting(self, model: str) -> tuple[str, ...]:
        """Return the versions that a file has to name: those that run, with the current version last.

        The others are the model's history, to which a rollback returns.
        """
        found, pinned = self.models[model], self.pinned(model)
        others = [
            name
            for name, version in found.versions.items()
            if name != found.current
            and (name in pinned or (version.state != "failed" and not version.deployment.make_current))
        ]
        return (*others, *([] if found.current is None else [found.current]))
