"""Everything that the rollout knows of the world at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clipper.control.snapshot import ApplicationSnapshot, Peer, ReplicaAddress
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.reconcile.plan import NO_DEATHS, History, Phase, Slot
from clipper.supervisor.rollout.wanted import Records

WorkerPhase = Literal["starting", "ready", "lost", "backing_off", "crash_loop", "stopping", "draining"]
# The phases of slots and workers that should have a process but do not.
DOWN = ("dead", "backing_off", "crash_loop")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a start failed; ``log_tail`` holds the container's last lines."""

    reason: str
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """The place of a replica, and the process in it.

    Attributes:
        spec: the spec with which its process, or its last process, was started.
        id: the process's id; empty if there is no process.
        input_type: the type that the container reported when it became ready; None before.
        output_type, output_is_declared, output_is_untyped: what it reported after its warm-up; None if it knew no type.
        start_failure: set while the slot is dead because its last start failed.
        last_error: how the last process ended, or why it could not be started.
        is_outdated: whether the process runs another Clipper's code than ours, or with other settings.
        has_to_move: whether it is on a node of a cluster that is being emptied.
    """

    slot: Slot
    phase: Phase
    spec: VersionSpec
    id: str = ""
    address: ReplicaAddress | None = None
    input_type: str | None = None
    runtime: str = ""
    warning: str | None = None
    start_failure: Failure | None = None
    last_error: str | None = None
    history: History = NO_DEATHS
    is_outdated: bool = False
    has_to_move: bool = False
    output_type: str | None = None
    output_is_declared: bool = False
    output_is_untyped: bool = False

    @property
    def lives(self) -> bool:
        return self.phase in ("starting", "ready")


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """The facts about a query worker.

    A worker that is ``lost`` cannot be reached, on a node that may be cut off. It may go on answering, by its last
    snapshot. No rule waits for it. Once it can be reached, rules that wait for every worker wait for it again, so it
    gets the newest snapshot before anything goes on.

    Attributes:
        peer: its address for other workers; None if it has no process, or a process that is ending.
        generation: the generation in force that it last reported to us; None before its first report.
        found_generation: the generation in force when we first dialled it, which an earlier supervisor may have sent.
        unlinked: ids of the replicas that it could not dial, each with the reason.
        undrained: ids of the replicas out of service that still run one of its batches.
        is_spare: whether it stands in while others are replaced.
        is_outdated: whether it runs another Clipper's code than ours, or with other settings.
        node: the address of its node in a cluster; empty if it runs on the server's machine.
    """

    index: int
    phase: WorkerPhase
    peer: Peer | None = None
    generation: int | None = None
    found_generation: int = 0
    unlinked: Mapping[str, str] = field(default_factory=dict)
    undrained: tuple[str, ...] = ()
    last_error: str | None = None
    is_spare: bool = False
    is_outdated: bool = False
    node: str = ""

    @property
    def is_expected(self) -> bool:
        """Whether the worker is up or starting, so that rules that wait for every worker wait for it."""
        return self.phase in ("starting", "ready")


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of a moment.

    Attributes:
        now_s: the time of a clock that never goes back.
        applications: the applications that can be encoded for workers.
        slots: the slots in order; unchanged facts are the same object as before.
        can_commit_at_s: when to try a registry again that could not be written.
        revision: stays the same while the records do.
        fleet_revision: stays the same while the records of models and versions do.
    """

    now_s: float
    records: Records
    applications: tuple[ApplicationSnapshot, ...]
    slots: tuple[SlotFacts, ...]
    workers: tuple[WorkerFacts, ...]
    can_commit_at_s: float = float("-inf")
    revision: int | None = None
    fleet_revision: int | None = None


def changed_slots(before: tuple[SlotFacts, ...], now: tuple[SlotFacts, ...]) -> tuple[list[SlotFacts], list[SlotFacts]]:
    """Return the facts that are only in ``now``, and those only in ``before``: new facts are another object."""
    if before is now:
        return [], []
    if len(before) == len(now):  # nearly always: then few pairs differ
        pairs = [(then, one) for then, one in zip(before, now) if then is not one]
        before, now = tuple(then for then, _ in pairs), tuple(one for _, one in pairs)
    old, new = set(map(id, before)), set(map(id, now))
    return [one for one in now if id(one) not in old], [one for one in before if id(one) not in new]
