"""A scheduler whose replicas are known to take what the test says."""

from dataclasses import dataclass

from clipper.worker.abstraction.batching.decision import Decision
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import Work
from tests.works import make_work

SLO_S = 1.0


@dataclass(frozen=True, slots=True)
class Speed:
    """A replica that takes ``fixed_s + per_row_s × rows + per_byte_s × bytes``, in batches of up to ``limit``."""

    fixed_s: float = 0.0001
    per_row_s: float = 0.00001
    limit: int = 4
    per_byte_s: float = 0.0

    def service_s(self, rows: int, size_bytes: int = 0) -> float:
        return self.fixed_s + self.per_row_s * rows + self.per_byte_s * size_bytes


# Short batches, of which two may be in flight; long ones, which are awaited; and those longer than any SLO here.
SHORT = Speed()
LONG = Speed(0.02, 0.001)
HOPELESS = Speed(2.0, 0.01)


def make_scheduler(*speeds: Speed, delay_s: float = 0.0, max_length: int = 1000, slo_s: float = SLO_S) -> Scheduler:
    """Its replicas are called "0", "1", and so on."""
    scheduler = Scheduler(max_length, 1 << 20, delay_s, Flow())
    replicas = [scheduler.add_replica(str(number), speed.limit, is_fixed=True) for number, speed in enumerate(speeds)]
    for replica, speed in zip(replicas, speeds):
        teach(replica, speed)
    scheduler.set_slo(slo_s)
    return scheduler


def teach(replica: ReplicaState, speed: Speed) -> None:
    """Let it have answered a few batches of different sizes, exactly as fast as that."""
    for repeat in range(6):
        for rows in sorted({1, 2, speed.limit // 4 + 1, speed.limit // 2 + 1, speed.limit}):
            size_bytes = rows * (10 if repeat % 2 else 1000)
            replica.times.record(rows, size_bytes, speed.service_s(rows, size_bytes))


def push(scheduler: Scheduler, count: int, now_s: float = 0.0, slo_s: float = SLO_S) -> list[Work]:
    works = [make_work(b"%d" % number, now_s, slo_s) for number in range(count)]
    assert all(scheduler.push(work, now_s) == (True, []) for work in works)
    return works


def sizes(decision: Decision) -> list[tuple[str, int]]:
    return [(replica.id, len(batch.works)) for replica, batch in decision.batches]


def finish_all(scheduler: Scheduler, now_s: float) -> int:
    """All that is in flight comes back. Returns how many rows."""
    rows = 0
    for replica in scheduler.replicas.values():
        for batch_id in list(replica.in_flight):
            finished = scheduler.finished(replica, batch_id, now_s)
            assert finished is not None
            rows += len(finished[0].works)
    return rows


def is_empty(decision: Decision) -> bool:
    """Whether there is nothing to do, now or later."""
    return not decision.batches and not decision.late and not decision.shed and decision.wake_s is None
