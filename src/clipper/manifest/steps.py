"""The steps that a plan is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from clipper.manifest.links import LinkCall
from clipper.manifest.manifest import WantedApplication, WantedKey, WantedVersion
from clipper.settings.replicas import ReplicaRange

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
    """
    Attributes:
        subject: what it is about, such as ``model digits``.
        does: what it does, such as ``deploys a version``.
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
    """``start_timeout_s`` is how long a new replica may take to start."""

    model: str
    version: str
    replicas: int | ReplicaRange
    start_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApplication(Step):
    application: WantedApplication


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeApplication(Step):
    """``settings`` are keywords of ``Clipper.change_application``."""

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
    """Something in the file that no call can bring about. ``model`` is the model that is to blame, if any."""

    subject: str
    reason: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Attributes:
        models: the steps of each model; models may be done at the same time.
        others: steps to do one after the other, once those of all models are done.
        deletions: steps to do last, and only if everything else was done.
        obstacles: what cannot be done.
        unnamed: what the file does not name, and stays.
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
    """A value in a line, shortened."""
    if value is UNSET or value is None:
        return "none"
    if isinstance(value, ReplicaRange):
        return str(value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
