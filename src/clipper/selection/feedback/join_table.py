"""The queries of the recent past, by id, so that feedback can be joined with what was predicted."""

from collections import deque
from typing import Literal

from clipper.control.statistics import FeedbackWindowStatistics
from clipper.selection.query import Query

# What a query costs beside its input and outputs: itself, its numbers, its places here; and each output but the first.
QUERY_OVERHEAD_BYTES = 350
OUTPUT_OVERHEAD_BYTES = 85
# What was said to a query, where an application's confidences are made of more than votes.
SAID_BYTES = 80
# How large queries may be on average before fewer are kept: five models' labels, or a hundred numbers of one. So the
# table's memory has a bound, whatever outputs it gets.
BYTES_PER_QUERY = 1024
# Times to live of which is known what is over; an application has one, which is seldom changed.
MAX_TTLS = 1000
# Of many queries so small a part goes at once, some 80 at the default bound, which takes 30 us: half of what it does
# one by one.
EVICTED_PART = 1 / 1024


class JoinTable:
    """Keeps each query until its time is over, and ``max_queries`` of them: beyond that the oldest go first.

    Queries of several applications, with several times to live, share it. What is kept is what feedback is learned
    from: outputs and choice, and the input only where a model may be asked again.

    Args:
        max_bytes: bound of their size; for queries of ``BYTES_PER_QUERY`` if None.

    Attributes:
        evicted: queries that had to go before their time.
    """

    def __init__(self, max_queries: int, max_bytes: int | None = None) -> None:
        self.max_queries = max_queries
        self._max_bytes = max_queries * BYTES_PER_QUERY if max_bytes is None else max_bytes
        # Ids grow, so the last that went for want of room, or being over, tells of those before it.
        self._last_evicted = -1
        self._last_over: dict[float, int] = {}
        self._by_id: dict[int, Query] = {}
        self._order: deque[Query] = deque()
        self.size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def remember(self, query: Query, now_s: float) -> None:
        """Keep ``query``, with the outputs that it has, for its application's time."""
        self._by_id[query.id] = query
        order = self._order
        order.append(query)
        self.size_bytes += _size_bytes(query)
        oldest = order[0]
        if oldest.arrival_s + oldest.owner.feedback_ttl_s <= now_s:
            self._forget_over(now_s)
        if self.size_bytes > self._max_bytes or len(order) > self.max_queries:
            self._evict()

    def grow(self, query_id: int, size_bytes: int) -> None:
        """A query has got one more output since it was remembered."""
        if query_id in self._by_id:
            self.size_bytes += size_bytes
            if self.size_bytes > self._max_bytes:
                self._evict()

    def find(self, query_id: int, now_s: float) -> Query | None:
        """The query of that id, if it is still kept and its time is not over."""
        while self._order and _is_over(self._order[0], now_s):
            self._forget_oldest()
        query = self._by_id.get(query_id)
        return None if query is None or _is_over(query, now_s) else query

    def why_not(self, query_id: int, ttl_s: float) -> Literal["over", "evicted", "unanswered"]:
        """Why a query that was asked, of an application with that time to live, is not found."""
        if query_id <= self._last_over.get(ttl_s, -1):
            return "over"
        return "evicted" if query_id <= self._last_evicted else "unanswered"

    def statistics(self, now_s: float) -> FeedbackWindowStatistics:
        age_s = max(now_s - self._order[0].arrival_s, 0.0) if self._order else 0.0
        return FeedbackWindowStatistics(
            len(self._by_id), self.max_queries, self.size_bytes, self._max_bytes, self.evicted, age_s
        )

    def _forget_over(self, now_s: float) -> None:
        # Two for one, so that those whose time is over become fewer even while more come.
        for _ in range(2):
            if self._order and _is_over(self._order[0], now_s):
                self._forget_oldest()

    def _evict(self) -> None:
        by_id, order, size_bytes = self._by_id, self._order, self.size_bytes
        until = min(len(order) - int(len(order) * EVICTED_PART), self.max_queries)
        while size_bytes > self._max_bytes or len(order) > until:
            query = order.popleft()
            del by_id[query.id]
            self._last_evicted = max(self._last_evicted, query.id)
            size_bytes -= _size_bytes(query)
            self.evicted += 1
        self.size_bytes = size_bytes

    def _forget_oldest(self) -> None:
        query = self._order.popleft()
        del self._by_id[query.id]
        self.size_bytes -= _size_bytes(query)
        ttl_s = query.owner.feedback_ttl_s
        if len(self._last_over) >= MAX_TTLS:
            self._last_over.clear()
        self._last_over[ttl_s] = max(self._last_over.get(ttl_s, -1), query.id)


def _is_over(query: Query, now_s: float) -> bool:
    return query.arrival_s + query.owner.feedback_ttl_s <= now_s


def _size_bytes(query: Query) -> int:
    """Worked out twice rather than kept: less memory to touch is worth more than the sums."""
    size = QUERY_OVERHEAD_BYTES + (0 if query.row is None else len(query.row))
    if query.features is not None:
        size += len(query.features)
    if query.said is not None:
        size += SAID_BYTES
    if query.first_output is not None:
        size += len(query.first_output)
    if query.more_outputs is not None:
        size += output_bytes(*query.more_outputs.values())
    if query.shadow_outputs is not None:
        size += output_bytes(*query.shadow_outputs.values())
    return size


def output_bytes(*outputs: bytes) -> int:
    """What outputs but the first cost."""
    return sum(map(len, outputs)) + OUTPUT_OVERHEAD_BYTES * len(outputs)
