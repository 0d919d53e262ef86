"""Containers and query workers, in memory: what each does by itself, and how long that takes."""

from collections import deque
from dataclasses import dataclass, field

from clipper.control.snapshot import Snapshot
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.reconcile.plan import NO_DEATHS, History, Phase, Slot
from clipper.supervisor.rollout.facts import Failure, WorkerPhase
from clipper.supervisor.workers.settings import WorkerNote, WorkerSettings

START_S, SLOW_START_S, START_TIMEOUT_S, STOP_S, UNDIALABLE_S, HANG_S = 0.5, 8.0, 60.0, 0.2, 20.0, 15.0
CRASH_AFTER_S = 3.0
BATCH_S = 1.0
# A worker that drains goes on with what it has, longer than another takes for a batch.
DRAIN_S = 3.0
# A version's target names the behaviour of its containers.
GOOD = ("good", "slow", "undialable")
BAD = ("broken", "hangs", "crashes", "deaf")
WORKERS = 2


@dataclass
class FakeSlot:
    slot: Slot
    spec: VersionSpec
    phase: Phase = "dead"
    id: str = ""
    build: int = 0
    due_s: float = float("inf")
    dialable_at_s: float = 0.0
    start_failure: Failure | None = None
    last_error: str | None = None
    history: History = NO_DEATHS
    retired_at_s: float = 0.0
    up_s: float = 0.0

    def die(self, now_s: float, reason: str) -> None:
        was_ready = self.phase == "ready"
        self.start_failure = None if was_ready else Failure(reason)
        self.history = self.history.died(now_s, now_s - self.up_s if was_ready else 0.0)
        self.phase, self.id, self.due_s, self.last_error = "dead", "", float("inf"), reason


@dataclass
class FakeWorker:
    """``serves`` is the snapshot in use; ``generation`` the generation that the supervisor has heard of."""

    index: int
    build: int
    instance: int
    settings: WorkerSettings
    phase: WorkerPhase = "starting"
    serves: Snapshot = field(default_factory=Snapshot)
    # Until when it has a batch, by the replica's id.
    busy: dict[str, float] = field(default_factory=dict)
    inbox: deque[Snapshot] = field(default_factory=deque)
    newest: Snapshot | None = None
    sent: Snapshot | None = None
    generation: int | None = None
    found_generation: int = 0
    unlinked: dict[str, str] = field(default_factory=dict)
    undrained: tuple[str, ...] = ()
    replies: deque[tuple[int, dict[str, str], tuple[str, ...]]] = field(default_factory=deque)
    hangs_since_s: float | None = None
    back_at_s: float = float("inf")
    node: str = ""
    # Since when the supervisor cannot reach it; clients can.
    cut_since_s: float | None = None

    @property
    def has_process(self) -> bool:
        return self.phase in ("starting", "ready", "draining")

    @property
    def note(self) -> WorkerNote:
        return WorkerNote(
            self.index, self.instance, f"w{self.instance}", self.settings, str(self.build), node=self.node
        )

    @property
    def asks(self) -> set[str]:
        """Ids of the replicas that it sends batches to."""
        models = self.serves.models
        return {replica.id for model in models for one in model.versions for replica in one.replicas}

    def push(self, snapshot: Snapshot) -> None:
        self.newest = snapshot
        self.send()

    def send(self) -> None:
        newest = self.newest
        if self.phase != "ready" or newest is None or newest is self.sent or len(self.inbox) == 4:
            return
        if newest.generation > self.found_generation:
            self.inbox.append(newest)
            self.sent = newest
