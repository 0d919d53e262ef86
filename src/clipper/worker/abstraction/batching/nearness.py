"""Decides until when the replicas on a worker's own node are enough for the waiting queries.

A batch for a replica of another node crosses the network, which costs both nodes processor time for TCP and TLS. So it
is sent there only if the deadline of the most urgent query would otherwise be at risk: if the query would wait for a
near replica for longer than half of its remaining time, or not be answered in time there.
"""

from collections.abc import Sequence

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.device import first_due_s
from clipper.worker.abstraction.batching.replica_state import ReplicaState


def near_until_s(near: Sequence[ReplicaState], queue: DeadlineQueue, now_s: float) -> float:
    """Return until when near replicas are enough; a time that is not after ``now_s`` if they are not.

    A batch that is overdue is expected to take as much longer as it is overdue by now. So a replica that hangs stops
    counting at ``min((d + 2e)/3, (d + e - b)/2)``, for a query with deadline ``d`` and batch time ``b``, where the
    batch before was expected to end at ``e``.

    Args:
        near: the near replicas that get work; at least one.
        queue: the queue, which must not be empty.
    """
    due_s = first_due_s(queue)
    row_bytes = queue.size_bytes / queue.length if queue.varies else 0.0
    best_s = now_s
    for replica in near:
        size = min(queue.length, replica.limit)
        slow_s = replica.times.slow_s(size, size * row_bytes)
        if not replica.in_flight:
            until_s = due_s - slow_s
        else:
            free_s = replica.free_s(now_s)
            if free_s - now_s > (due_s - now_s) / 2 or free_s + slow_s > due_s:
                continue
            until_s = min((due_s + 2 * free_s) / 3, (due_s + free_s - slow_s) / 2)
        best_s = max(best_s, until_s)
    return best_s
