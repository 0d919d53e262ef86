"""A bounded queue of work, earliest deadline first.

Queries of one SLO arrive in the order of their deadlines, so each SLO has a FIFO of its own (a lane), and the earliest
deadline is at the head of one of the few lanes. That makes push and take O(1) for the usual one or two SLOs, where
a heap would compare per query.
"""

from collections import deque

from clipper.abstraction.work import Work

# What is left of the SLO is for waiting: a version whose every batch takes longer than the SLO is still sent fresh
# queries, so that it can be seen to recover. Above two batches of the usual budget, one running and one behind it.
MAX_RESERVED_SHARE = 0.8

_NEVER_S = float("inf")


class DeadlineQueue:
    """Work waiting for a replica.

    Bounds: ``max_length`` pieces and ``max_bytes`` of inputs; ``push`` refuses beyond them. The longest wait is the
    SLO, since what is past its deadline is never taken.
    """

    def __init__(self, max_length: int, max_bytes: int) -> None:
        self._max_length = max_length
        self._max_bytes = max_bytes
        self._lanes: dict[float, deque[Work]] = {}
        self.length = 0
        self.size_bytes = 0

    def push(self, work: Work) -> bool:
        """Add work that has just arrived. False if the queue is full."""
        size = len(work.row)
        if self.length >= self._max_length or self.size_bytes + size > self._max_bytes:
            return False
        lane = self._lanes.get(work.slo_s)
        if lane is None:
            lane = self._add_lane(work.slo_s)
        lane.append(work)
        self.length += 1
        self.size_bytes += size
        return True

    def expire(self, now_s: float) -> list[Work]:
        """Remove and return the work whose deadline has passed."""
        expired: list[Work] = []
        for lane in self._lanes.values():
            self._expire_lane(lane, now_s, expired)
        return expired

    def push_back(self, batch: list[Work]) -> None:
        """Put back work that was taken and whose replica died. It was admitted before, so it is not refused now."""
        for work in reversed(batch):
            self._lanes.setdefault(work.slo_s, deque()).appendleft(work)
            self.length += 1
            self.size_bytes += len(work.row)

    def oldest_arrival_s(self) -> float:
        """When the work that has waited longest arrived. The queue must not be empty."""
        return min(lane[0].arrival_s for lane in self._lanes.values() if lane)

    def take(self, limit: int, now_s: float, service_s: float) -> tuple[list[Work], list[Work]]:
        """Remove and return up to ``limit`` pieces, earliest deadline first, and those found too late to send.

        Args:
            service_s: in how long the batch is expected to be answered; work whose deadline comes sooner is late.
        """
        batch: list[Work] = []
        late: list[Work] = []
        while len(batch) < limit and self.length:
            lane, until_s = self._earliest()
            self._take_from(lane, until_s, limit, now_s, service_s, batch, late)
        return batch, late

    def clear(self) -> list[Work]:
        """Remove and return everything."""
        everything = [work for lane in self._lanes.values() for work in lane]
        self._lanes.clear()
        self.length = self.size_bytes = 0
        return everything

    def _add_lane(self, slo_s: float) -> deque[Work]:
        # SLOs that are no longer in use leave empty lanes behind.
        self._lanes = {known: lane for known, lane in self._lanes.items() if lane}
        lane = self._lanes[slo_s] = deque()
        return lane

    def _expire_lane(self, lane: deque[Work], now_s: float, expired: list[Work]) -> None:
        rejoined = []
        # The first waiter's deadline is what the lane is ordered by; later ones may have joined in the meantime.
        while lane and lane[0].waiters[0].deadline_s <= now_s:
            work = lane.popleft()
            if work.deadline_s > now_s:
                rejoined.append(work)
            else:
                expired.append(self._removed(work))
        lane.extend(rejoined)

    def _earliest(self) -> tuple[deque[Work], float]:
        """The lane with the earliest head, and until which deadline it stays the earliest."""
        lanes = [lane for lane in self._lanes.values() if lane]
        if len(lanes) == 1:
            return lanes[0], _NEVER_S
        lanes.sort(key=lambda lane: lane[0].deadline_s)
        return lanes[0], lanes[1][0].deadline_s

    def _take_from(
        self,
        lane: deque[Work],
        until_s: float,
        limit: int,
        now_s: float,
        service_s: float,
        batch: list[Work],
        late: list[Work],
    ) -> None:
        most_s = lane[0].slo_s * MAX_RESERVED_SHARE
        cutoff_s = now_s + (service_s if service_s < most_s else most_s)
        length, size_bytes = len(lane), 0
        while lane and len(batch) < limit and lane[0].deadline_s <= until_s:
            work = lane.popleft()
            size_bytes += len(work.row)
            # The first look spares the usual work, with one waiter, a call.
            if work.deadline_s < cutoff_s or (work.waiters[0].done and not work.is_wanted):
                late.append(work)
            else:
                batch.append(work)
        self.length -= length - len(lane)
        self.size_bytes -= size_bytes

    def _removed(self, work: Work) -> Work:
        self.length -= 1
        self.size_bytes -= len(work.row)
        return work
