"""The instructions of the rollout to its shell. Each says why, for the history that operators read."""

from dataclasses import dataclass

from clipper.control.snapshot import Snapshot
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.registry.store import Put
from clipper.values.types import ModelId


@dataclass(frozen=True, slots=True)
class Note:
    """Record what happened to a version. The record is in force even if it cannot be stored yet."""

    record: VersionRecord
    why: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Make these changes for a version that is ready, all or none. If that fails, the facts say when to try again."""

    id: ModelId
    changes: tuple[Put, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Push:
    snapshot: Snapshot
    why: str


@dataclass(frozen=True, slots=True)
class Start:
    slot: Slot
    spec: VersionSpec
    why: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Take a slot's process out of service. It goes on answering until it is stopped."""

    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Begin to end a slot's process, which is out of service."""

    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class Forget:
    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class StartSpare:
    """Start the worker that stands in while others are replaced."""

    why: str


@dataclass(frozen=True, slots=True)
class DrainWorker:
    """Let a worker answer its open queries, and end it. Unless it is the spare, it is started again, with our code."""

    index: int
    why: str


@dataclass(frozen=True, slots=True)
class TakeEpochAbove:
    """Lead by a later epoch than this one, which workers obey."""

    epoch: int
    why: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Look again then, if nothing happens before."""

    at_s: float


Instruction = Note | Commit | Push | Start | Retire | Stop | Forget | StartSpare | DrainWorker | TakeEpochAbove | WakeAt
