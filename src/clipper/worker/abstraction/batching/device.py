"""The time of an accelerator on which replicas of several versions compute, so that each sees what the others do there.

Each version has a queue of its own. Without this, a batch that waits for another version's batch would seem to be slow
by itself, and a queue would promise time that is others'. Three things are shared:

- **Turns.** The version whose first row is due soonest sends the next batch, while at most two batches are in flight:
  one that computes, and one behind it, so that the accelerator never waits for the worker. Running one batch after
  another costs little throughput and makes times predictable (Gujarati et al.: "Serving DNNs like Clockwork", OSDI
  2020), and rows that are due later do not overtake.
- **Time.** Whether an accelerator computes two batches one after the other, or both at once and each more slowly, each
  moment of its time is counted once: for the batch that comes back first.
- **What is ahead.** A new query waits for all batches in flight, and for all rows that are due sooner.

A batch that hangs holds its own replica, and no other version: whether it computes at all, nobody knows.
"""

from bisect import bisect_left
from collections.abc import Callable, Sized
from math import inf
from typing import Protocol

import msgspec

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue, due_of
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.batching.service_times import LEAST_S, ServiceTimes

# A batch that is overdue is expected to take as long again as this share of what it has taken: the longer it hangs, the
# longer it will.
OVERDUE_SHARE = 0.5
# A batch hangs if it is in flight for so many times longer than all in flight together should take, and for so long.
# Its container is ended after half a minute and more, which is far too long for others to wait.
HANGS_TIMES, HANGS_S = 5.0, 0.25
# One batch computes, and the next one is there when it ends.
MAX_IN_FLIGHT = 2


class Computing(Protocol):
    """A replica, as its device sees it."""

    in_flight: dict[int, Batch]
    times: ServiceTimes
    is_draining: bool


class Sharer(msgspec.Struct, eq=False):
    """A replica on a device, with the queue that it takes its rows from, as do all ``replicas`` of the version.

    Attributes:
        await_turn: makes the version's scheduler decide again soon.
    """

    replica: Computing
    queue: DeadlineQueue
    replicas: Sized
    await_turn: Callable[[], None]


class Device:
    """An accelerator, as a worker sees it: other workers' batches only make the service times longer.

    Attributes:
        id: names it among those of all nodes.
    """

    def __init__(self, id_: str) -> None:
        self.id = id_
        self._sharers: list[Sharer] = []
        # Those that wait for others' batches; at most as many as there are sharers.
        self._waiting: list[Sharer] = []
        # The times that have been counted, in order. They are dropped when no batch in flight was sent before their
        # end, so there are at most as many as batches.
        self._counted: list[tuple[float, float]] = []
        self._last_done_s = 0.0

    @property
    def is_shared(self) -> bool:
        """Whether several versions compute on it."""
        return len(self._sharers) > 1 and any(each.queue is not self._sharers[0].queue for each in self._sharers)

    def replicas_beside(self, replica: Computing) -> int:
        """Return how many replicas of a replica's version compute on it, itself included."""
        own = next(each for each in self._sharers if each.replica is replica)
        return sum([each.queue is own.queue for each in self._sharers])

    def has_quicker(self, replica: Computing) -> bool:
        """Whether another version's row takes less time on it than one of this replica's."""
        own = next(each for each in self._sharers if each.replica is replica)
        one_row_s = replica.times.mean_s(1)
        others = [each.replica.times for each in self._sharers if each.queue is not own.queue]
        return any(times.is_known and times.mean_s(1) < one_row_s for times in others)

    @property
    def is_used(self) -> bool:
        return bool(self._sharers)

    def join(self, sharer: Sharer) -> None:
        self._sharers.append(sharer)

    def leave(self, replica: Computing) -> None:
        """Forget a replica that was lost."""
        self._sharers = [each for each in self._sharers if each.replica is not replica]
        self.release()

    # -- turns -------------------------------------------------------------------------------------------

    def admits(self, replica: Computing, now_s: float) -> bool:
        """Whether a replica with waiting rows may send a batch now. If not, it gets a turn when that may change: call
        again after ``HANGS_S``, since nothing happens when a batch hangs."""
        own = next(each for each in self._sharers if each.replica is replica)
        computing = self._computing(replica, now_s)
        others = [each for each in self._sharers if each.queue is not own.queue and each.queue.length]
        if len(computing) < MAX_IN_FLIGHT and not any(self._precedes(each, own, computing, now_s) for each in others):
            return True
        if own not in self._waiting:
            self._waiting.append(own)
        return False

    def _precedes(self, other: Sharer, own: Sharer, computing: list[Batch], now_s: float) -> bool:
        """Whether a replica has to let another version's waiting rows go first: they are due sooner, and the other may
        send a batch; or it may when its own batch is back, and a row of this version would make the first one late."""
        due_s, theirs, times = first_due_s(other.queue), other.replica.times, own.replica.times
        if other.replica.is_draining or due_s >= first_due_s(own.queue):
            return False
        if not other.replica.in_flight:
            return True
        are_known, sent = theirs.is_known and times.is_known, other.replica.in_flight.values()
        if not are_known or not any(each in computing for each in sent):
            return False
        needed_s = self.busy_s(now_s) + theirs.mean_s(1)
        return needed_s <= due_s - now_s < theirs.sure_times(1) * (needed_s + times.mean_s(1))

    def release(self) -> None:
        """Give those that wait a turn: a batch has ended, or rows have left a queue."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.await_turn()

    def spare_s(self, queue: DeadlineQueue, now_s: float) -> tuple[float, float]:
        """Return until when a batch may keep the device without making other versions' rows late, and the first
        deadline of these rows; infinite without any."""
        until_s = head_due_s = inf
        for each in self._sharers:
            if each.queue is not queue and each.queue.length and each.replica.times.is_known:
                lanes = each.queue.lanes()
                due_s = min([lane.works[0].due_s for lane in lanes])
                last_due_s = max([lane.works[-1].due_s for lane in lanes])
                head_due_s = min(head_due_s, due_s)
                # The rows before it are as uncertain as the row itself: its promise was made by what was ahead of it.
                sure = each.replica.times.sure_times(1)
                first_s = (due_s - now_s) / sure - each.replica.times.mean_s(1)
                last_s = (last_due_s - now_s) / sure - self.queued_s(queue, now_s, last_due_s)
                until_s = min(until_s, now_s + min(first_s, last_s))
        return until_s, head_due_s

    # -- time --------------------------------------------------------------------------------------------

    def service_s(self, sent_s: float, now_s: float) -> float:
        """Return how much of the time since a batch was sent was not counted for others yet, and count it for this one.

        Call it for each batch that comes back, after it is no longer in flight.
        """
        began_s, counted_s, before = sent_s, 0.0, []
        for from_s, until_s in self._counted:
            if until_s <= sent_s:
                before.append((from_s, until_s))
            else:
                counted_s += until_s - max(from_s, sent_s)
                began_s = min(began_s, from_s)
        oldest_s = min([each.sent_s for one in self._sharers for each in one.replica.in_flight.values()], default=now_s)
        self._counted = [each for each in (*before, (began_s, now_s)) if each[1] > oldest_s]
        self._last_done_s = now_s
        self.release()
        return now_s - sent_s - counted_s

    def busy_s(self, now_s: float, replica: Computing | None = None) -> float:
        """Return how long the batches in flight keep it busy, expected now: longer, the longer they are overdue.

        ``replica``: the one that would wait, for which its own batches count, too, if they hang.
        """
        expected_s, first_s = 0.0, now_s
        for batch in self._computing(replica, now_s):
            expected_s += batch.expected_s
            first_s = min(first_s, batch.sent_s)
        if not expected_s:
            return 0.0
        passed_s = now_s - max(first_s, self._last_done_s)
        return max(expected_s - passed_s, OVERDUE_SHARE * (passed_s - expected_s))

    def _computing(self, replica: Computing | None, now_s: float) -> list[Batch]:
        """Return the batches in flight, but for those that wait for an ask, and those of other replicas that hang."""
        in_flight = [(each.replica, batch) for each in self._sharers for batch in each.replica.in_flight.values()]
        most_s = max(HANGS_TIMES * sum([batch.expected_s for _, batch in in_flight]), HANGS_S)
        return [
            batch
            for sender, batch in in_flight
            if not batch.asks and (sender is replica or now_s - batch.sent_s <= most_s)
        ]

    def filled(self, now_s: float, due_s: float) -> float:
        """Return the share of the time until ``due_s`` that what is in flight, or waits and is due by then, takes."""
        return min((self.busy_s(now_s) + self.queued_s(None, now_s, due_s)) / max(due_s - now_s, LEAST_S), 1.0)

    def queued_s(self, besides: DeadlineQueue | None, now_s: float, due_s: float) -> float:
        """Return how long the rows take that wait in other versions' queues and are due by ``due_s``.

        Rows that can no longer be in time are not counted: they are dropped and not sent.
        """
        queued_s, start_s = 0.0, now_s + self.busy_s(now_s)
        for each in self._sharers:
            times = each.replica.times
            if each.queue is not besides and each.queue.length and times.is_known:
                rows = rows_due_by(each.queue, due_s) - rows_due_by(each.queue, start_s + times.mean_s(1))
                if rows > 0:
                    queued_s += times.mean_s(rows / len(each.replicas))
        return queued_s


def first_due_s(queue: DeadlineQueue) -> float:
    """Return the first deadline in a queue that is not empty."""
    return min([lane.works[0].due_s for lane in queue.lanes()])


def rows_due_by(queue: DeadlineQueue, due_s: float) -> int:
    """Return how many rows of a queue that is not empty are served before a row with this deadline."""
    lanes = queue.lanes()
    if len(lanes) == 1 and lanes[0].works[-1].due_s <= due_s:
        return queue.length
    return sum([bisect_left(lane.works, due_s, key=due_of) for lane in lanes])
