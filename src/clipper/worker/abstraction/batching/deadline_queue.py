"""A bounded queue of work, earliest deadline first.

Queries with the same SLO arrive in the order of their deadlines. So each SLO has its own FIFO, a lane, and the earliest
deadline is at the head of one of a few lanes. Push and take are O(1) for the usual one or two SLOs, while a heap would
compare for each query. If rows differ in length, each lane also holds only rows of similar length, so that a batch can
leave out the longest rows. Background work has its own lane, behind all others.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from math import inf, nextafter

import msgspec

from clipper.worker.abstraction.work import Work

# A lane holds rows whose lengths differ by less than a factor of four, so that the rows of a batch cost about the same
# once a lane of longer rows is left out. All rows below 128 bytes share a lane: they cost hardly more than empty rows.
LENGTH_CLASS_BITS = 2
ALIKE_BITS = 6
# Background work may take this share of the queue's bounds, in addition to them.
MAX_BACKGROUND_SHARE = 0.25

# One call takes at most this many expired pieces out of the queue: a millisecond of work. A whole queue took 10 ms.
MAX_DUE = 1024

# Work whose clients have left stays until its turn comes. A full queue is searched for it at most once in this time,
# since that takes some milliseconds.
UNWANTED_EVERY_S = 0.05

# There are few lanes: one for each SLO in use and class of length. Beyond this many, empty lanes are dropped.
MAX_IDLE_LANES = 64


class Lane:
    """Work with the same SLO and, if lengths vary, of similar length; sorted by deadline.

    Attributes:
        id: a number that is never used again. Each queued work names its lane by it; 0 is no lane.
        size_bytes: total length of its rows.
    """

    __slots__ = ("id", "length_class", "size_bytes", "slo_s", "works")

    def __init__(self, id_: int, slo_s: float, length_class: int) -> None:
        self.id = id_
        self.slo_s = slo_s
        self.length_class = length_class
        self.works: deque[Work] = deque()
        self.size_bytes = 0


class Taken(msgspec.Struct, eq=False):
    """Work that left the queue: ``batch`` shall be sent, ``dropped`` shall not."""

    batch: list[Work]
    dropped: list[Work]


class DeadlineQueue:
    """Work that waits for a replica.

    The queue holds up to ``max_length`` pieces and ``max_bytes`` of inputs, and in addition a share of each for
    background work. ``push`` refuses more. No work waits longer than its SLO: expired work is never sent.

    Attributes:
        length: number of queued pieces, without background work; ``size_bytes`` is the length of their inputs.
        arrivals: number of pieces ever pushed, without background work.
        varies: whether rows of different lengths have come. Until then the queue ignores lengths.
    """

    def __init__(self, max_length: int, max_bytes: int) -> None:
        self._max_length = max_length
        self._max_bytes = max_bytes
        self._row_bytes: int | None = None
        self.varies = False
        self._lanes: dict[tuple[float, int], Lane] = {}
        self._lane_ids = 1
        self._background = Lane(1, inf, 0)
        self._lanes_by_id = {1: self._background}
        # The lane of the last push; usually the next push goes to the same lane.
        self._last = self._background
        self.length = self.arrivals = 0
        self.size_bytes = 0
        self._looks_from_s = 0.0

    @property
    def background(self) -> int:
        return len(self._background.works)

    @property
    def background_row_bytes(self) -> float:
        return self._background.size_bytes / max(self.background, 1)

    def push(self, work: Work) -> bool:
        """Add new work. Return False if the queue is full."""
        size = len(work.row)
        length, size_bytes = self.length + 1, self.size_bytes + size
        if length > self._max_length or size_bytes > self._max_bytes:
            return False
        lane = self._last
        if size != self._row_bytes or lane.slo_s != work.slo_s:
            self._note_length(size)
            lane = self._last = self._lane(work.slo_s, self._length_class(size))
        works = lane.works
        if works and works[-1].due_s > work.due_s:
            # The query waited before the worker took it in, and later queries did not.
            works.insert(bisect_left(works, work.due_s, key=due_of), work)
        else:
            works.append(work)
        work.lane = lane.id
        lane.size_bytes += size
        self.arrivals += 1
        self.length, self.size_bytes = length, size_bytes
        return True

    def push_background(self, work: Work) -> bool:
        """Add background work, which is sent only if it makes no prediction late. Return False if there is no room."""
        lane, size = self._background, len(work.row)
        most = self._max_length * MAX_BACKGROUND_SHARE
        if len(lane.works) >= most or lane.size_bytes + size > self._max_bytes * MAX_BACKGROUND_SHARE:
            return False
        self._note_length(size)
        self._last = lane
        work.is_background = True
        work.lane = lane.id
        lane.works.append(work)
        lane.size_bytes += size
        return True

    def hasten(self, work: Work, slo_s: float, deadline_s: float) -> None:
        """Move ``work`` forward to the deadline of a new query that has joined it, if ``work`` is still queued."""
        if not work.lane or (work.due_s <= deadline_s and not work.is_background):
            return
        self._lanes_by_id[work.lane].works.remove(work)
        self._leave(work)
        work.slo_s, work.due_s, work.is_background = slo_s, deadline_s, False
        self._enter(work)

    def push_back(self, batch: Sequence[Work]) -> None:
        """Put back work whose replica died. The queue accepted it before, so it accepts it again even if it is full."""
        # Backwards: pieces with equal deadlines keep their order.
        for work in reversed(batch):
            self._enter(work)

    def lanes(self) -> list[Lane]:
        """Return the lanes that are not empty, without the background lane."""
        lane = self._last
        # Usually the lane of the last push has all work.
        if len(lane.works) == self.length and lane is not self._background:
            return [lane]
        return [lane for lane in self._lanes.values() if lane.works]

    def oldest_arrival_s(self) -> float:
        """Return when the work that has waited longest arrived. The queue must not be empty."""
        lane = self._last
        # Usually the lane of the last push has all work.
        if len(lane.works) == self.length and lane is not self._background:
            return lane.works[0].arrival_s
        return min(lane.works[0].arrival_s for lane in self.lanes())

    def take_due_before(self, at_s: float) -> list[Work]:
        """Remove and return predictions all of whose waiters are due before ``at_s``: at most ``MAX_DUE``."""
        due: list[Work] = []
        for lane in self.lanes():
            while lane.works and lane.works[0].due_s < at_s and len(due) < MAX_DUE:
                work = lane.works.popleft()
                self._leave(work)
                if not self._requeue_for_later(work, at_s):
                    due.append(work)
        return due

    def expire(self, now_s: float) -> list[Work]:
        """Remove and return work all of whose deadlines have passed: at most ``MAX_DUE`` predictions per call."""
        expired = self.take_due_before(nextafter(now_s, inf))
        lane = self._background
        while lane.works and lane.works[0].deadline_s <= now_s:
            expired.append(lane.works.popleft())
            self._leave(expired[-1])
        return expired

    def take(self, limit: int, lanes: list[Lane], from_s: float = 0.0) -> Taken:
        """Remove the pieces of these lanes that are due before ``from_s``, then take up to ``limit`` for a batch.

        A removed piece that a query with a later deadline has joined is queued again under that deadline. Pieces that
        nobody waits for any more are dropped and do not count towards ``limit``.
        """
        taken = Taken([], [])
        batch, dropped = taken.batch, taken.dropped
        if len(lanes) == 1:
            works = lanes[0].works
            if self.varies or (works and works[0].due_s < from_s):
                self._take_from(lanes[0], inf, from_s, limit, batch, dropped)
            else:
                self._take_alike(lanes[0], limit, taken)
            return taken
        while len(batch) < limit:
            heads = sorted((lane for lane in lanes if lane.works), key=lambda lane: lane.works[0].due_s)
            if not heads:
                break
            until_s = heads[1].works[0].due_s if len(heads) > 1 else inf
            self._take_from(heads[0], until_s, from_s, limit, batch, dropped)
        return taken

    def take_only(self, by_s: float) -> Work | None:
        """Take the only piece of the queue if it was pushed last and is due at ``by_s`` or later; else return None."""
        lane = self._last
        works = lane.works
        if self.length != 1 or len(works) != 1 or works[0].due_s < by_s:
            return None
        work = works.popleft()
        work.lane = lane.size_bytes = self.length = self.size_bytes = 0
        return work

    def take_newest(self, lanes: list[Lane]) -> Taken:
        """Take the piece with the latest deadline."""
        taken = Taken([], [])
        while not taken.batch:
            lane = max((lane for lane in lanes if lane.works), key=lambda lane: lane.works[-1].due_s, default=None)
            if lane is None:
                break
            work = lane.works.pop()
            self._leave(work)
            (taken.batch if work.is_wanted else taken.dropped).append(work)
        return taken

    def take_background(self, limit: int) -> Taken:
        """Take up to ``limit`` background pieces."""
        taken = Taken([], [])
        works = self._background.works
        while works and len(taken.batch) < limit:
            work = works.popleft()
            self._leave(work)
            (taken.batch if work.is_wanted else taken.dropped).append(work)
        return taken

    def make_room(self, now_s: float) -> list[Work]:
        """Remove and return expired work; if there is none, now and then work that nobody waits for any more."""
        expired = self.expire(now_s)
        if not expired and now_s >= self._looks_from_s:
            self._looks_from_s = now_s + UNWANTED_EVERY_S
            # The check of the first waiter spares a call in the usual case of one waiter.
            expired = self.take_all(lambda work: work.waiters[0].done and not work.is_wanted)
        return expired

    def take_all(self, is_meant: Callable[[Work], bool]) -> list[Work]:
        """Remove and return, by deadline, the work that ``is_meant`` selects. Background work becomes ordinary."""
        found: list[Work] = []
        for lane in self._lanes_by_id.values():
            meant = [work for work in lane.works if is_meant(work)]
            if meant:
                found += meant
                lane.works = deque([work for work in lane.works if not is_meant(work)])
        for work in found:
            self._leave(work)
            work.is_background = False
        return sorted(found, key=due_of)

    def clear(self) -> list[Work]:
        everything = [work for lane in self._lanes_by_id.values() for work in lane.works]
        for work in everything:
            work.lane = 0
        self._lanes.clear()
        self._background.works.clear()
        self._background.size_bytes = 0
        self._lanes_by_id = {self._background.id: self._background}
        self._last = self._background
        self.length = self.size_bytes = 0
        return everything

    def _note_length(self, size: int) -> None:
        self.varies = self.varies or self._row_bytes not in (None, size)
        self._row_bytes = size

    def _length_class(self, size: int) -> int:
        return max(size.bit_length() - ALIKE_BITS, 0) // LENGTH_CLASS_BITS if self.varies else 0

    def _lane(self, slo_s: float, length_class: int) -> Lane:
        lane = self._lanes.get((slo_s, length_class))
        if lane is None:
            if len(self._lanes) >= MAX_IDLE_LANES:
                # SLOs that are no longer in use have left empty lanes.
                self._lanes = {key: known for key, known in self._lanes.items() if known.works}
                self._lanes_by_id = {known.id: known for known in (*self._lanes.values(), self._background)}
                self._last = self._background
            self._lane_ids += 1
            lane = self._lanes[slo_s, length_class] = Lane(self._lane_ids, slo_s, length_class)
            self._lanes_by_id[lane.id] = lane
        return lane

    def _enter(self, work: Work) -> None:
        size = len(work.row)
        if size != self._row_bytes:
            self._note_length(size)
            self._last = self._background
        lane = self._background if work.is_background else self._lane(work.slo_s, self._length_class(size))
        works = lane.works
        if not works or works[-1].due_s < work.due_s:
            works.append(work)
        else:
            # Before pieces with the same deadline: it has waited longer.
            works.insert(bisect_left(works, work.due_s, key=due_of), work)
        work.lane = lane.id
        lane.size_bytes += size
        if not work.is_background:
            self.length += 1
            self.size_bytes += size

    def _leave(self, work: Work) -> None:
        """Update the counters for ``work``, which was removed from its lane's deque."""
        size = len(work.row)
        self._lanes_by_id[work.lane].size_bytes -= size
        if not work.is_background:
            self.length -= 1
            self.size_bytes -= size
        work.lane = 0

    def _requeue_for_later(self, work: Work, at_s: float) -> bool:
        """Queue ``work`` again under the earliest deadline of its waiters after ``at_s``.

        Return False if no waiter has such a deadline.
        """
        if work.deadline_s <= max(work.due_s, at_s):
            return False
        later = [waiter.deadline_s for waiter in work.waiters if not waiter.done and waiter.deadline_s > at_s]
        if not later:
            return False
        work.due_s = max(work.due_s, min(later))
        self._enter(work)
        return True

    def _take_alike(self, lane: Lane, limit: int, taken: Taken) -> None:
        """Take from a single lane whose rows have one length, as for most batches, with few instructions a row."""
        works = lane.works
        pop, append = works.popleft, taken.batch.append
        before = len(works)
        while works and limit:
            work = pop()
            work.lane = 0
            # The check of the first waiter spares a call in the usual case of one waiter.
            if work.waiters[0].done and not work.is_wanted:
                taken.dropped.append(work)
            else:
                append(work)
                limit -= 1
        count = before - len(works)
        size_bytes = count * (self._row_bytes or 0)
        self.length -= count
        self.size_bytes -= size_bytes
        lane.size_bytes -= size_bytes

    def _take_from(
        self, lane: Lane, until_s: float, from_s: float, limit: int, batch: list[Work], dropped: list[Work]
    ) -> None:
        """Take from one lane while its head is due by ``until_s``."""
        works = lane.works
        before = len(works)
        size_bytes, room = 0, limit - len(batch)
        left: list[Work] = []
        while works and room:
            work = works[0]
            if work.due_s > until_s:
                break
            works.popleft()
            work.lane = 0
            size_bytes += len(work.row)
            if work.due_s < from_s:
                (dropped if work.deadline_s <= work.due_s else left).append(work)
            elif work.waiters[0].done and not work.is_wanted:
                dropped.append(work)
            else:
                batch.append(work)
                room -= 1
        self.length -= before - len(works)
        self.size_bytes -= size_bytes
        lane.size_bytes -= size_bytes
        for work in left:
            if not self._requeue_for_later(work, work.due_s):
                dropped.append(work)


def main_slo_s(lanes: Sequence[Lane], smallest_s: float) -> float:
    """Return the SLO of the lane with the most work; ``smallest_s`` if nothing waits."""
    if len(lanes) == 1:
        return lanes[0].slo_s
    return max(lanes, key=lambda lane: len(lane.works)).slo_s if lanes else smallest_s


def due_of(work: Work) -> float:
    return work.due_s
