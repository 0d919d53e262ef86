"""Decides how long a small batch waits for more queries, because it would answer fewer a second than arrive."""

from collections.abc import Collection

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue, Lane
from clipper.worker.abstraction.batching.replica_state import SHORT_S, ReplicaState
from clipper.worker.abstraction.batching.service_times import ServiceTimes

# A batch that answers this many times the arrivals does not wait.
WAITS_BELOW = 1.2
# It stops waiting once it has this many times the queries that arrive during a batch's fixed time.
WORTH_TIMES = 2.0
# It also stops waiting if nothing has arrived for this many times the mean time between two queries.
MAX_GAPS = 10.0
# A timer of the loop may be late by this much.
TIMER_LATE_S = 0.001
# With this many rows the fixed cost of a short batch, some 0.1 ms in the worker and the container, is small per row.
ENOUGH = 16
# A short batch waits for more queries for at most this time and this share of the SLO. If many models share the queries
# and each gets few, waiting saves batches: exp3 over five models answers a sixth more.
MAX_SHORT_WAIT_S = 0.002
MAX_SHORT_WAIT_SHARE = 0.1


def until_larger_s(
    times: ServiceTimes,
    lanes: list[Lane],
    size: int,
    row_bytes: float,
    per_s: float,
    needed_per_s: float,
    first_due_s: float,
) -> float:
    """Return until when a batch of all ``size`` queries that wait should wait for more; a past time if it should not.

    Args:
        row_bytes: mean length of its rows; 0 while all have one length.
        per_s: the rate of arrivals.
        needed_per_s: the replica's share of that rate.
    """
    if size >= WAITS_BELOW * needed_per_s * times.mean_s(size, size * row_bytes):
        return 0.0
    if size >= WORTH_TIMES * per_s * times.fixed_s:
        return 0.0  # arrivals during the wait would not make up for it
    # The rate may come from clients that wait for this very answer, or from before a pause. Then nobody arrives,
    # and the batch would wait in vain for a deadline that may be seconds away.
    paused_s = max([lane.works[-1].arrival_s for lane in lanes]) + MAX_GAPS / per_s
    return min(paused_s, first_due_s - times.slow_s(size + 1, (size + 1) * row_bytes) - TIMER_LATE_S)


def short_wait_until_s(queue: DeadlineQueue, replicas: Collection[ReplicaState], most_s: float) -> float:
    """Return until when a short batch of the waiting queries is held back at most; a past time if it is not."""
    waiting = queue.length
    if not waiting or waiting >= ENOUGH:
        return 0.0
    for replica in replicas:
        if replica.times.one_row_s >= SHORT_S or waiting >= replica.limit:
            return 0.0
    return queue.oldest_arrival_s() + most_s
