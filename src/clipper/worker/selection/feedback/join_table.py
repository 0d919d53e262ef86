"""Recent queries by id, so that feedback can be joined with their predictions."""

from collections import deque
from typing import Literal

from clipper.control.statistics import FeedbackWindowStatistics
from clipper.values.outputs.output import Output
from clipper.worker.selection.query import Query

# The size of a query without its input, context and outputs: the object, its numbers, its entries here; and the size of
# each further output.
QUERY_OVERHEAD_BYTES = 350
OUTPUT_OVERHEAD_BYTES = 85
# Size of ``Said``, if the application's confidences are derived.
SAID_BYTES = 80
# The average size of queries above which fewer are kept: five models' labels, or a hundred numbers of a model. It
# bounds the table's memory, whatever the outputs are.
BYTES_PER_QUERY = 1024
# Number of times to live for which expiry is tracked. An application has one, which seldom changes.
MAX_TTLS = 1000
# The part of many queries that is evicted at once: some 80 at the default bound, which takes 30 us, half of the time
# that it takes one by one.
EVICTED_PART = 1 / 1024
# Queries that wait to be read from ``fresh``: those of half a second at 20,000 a second. Further ones are passed over.
MAX_FRESH = 10_000


class JoinTable:
    """Keeps each query for its time to live, and at most ``max_queries``: beyond that the oldest are evicted.

    Queries of several applications, with several times to live, share the table. It keeps what learning needs: outputs
    and choice, and the input only if a model may be asked again.

    Args:
        max_bytes: the bound on their size; None means ``max_queries`` of ``BYTES_PER_QUERY``.

    Attributes:
        evicted: number of queries that were evicted before their time.
        last_evicted: the highest id of these; -1 if there is none.
        fresh: queries that were remembered, or have grown, until a reader takes the list out; None without a reader.
        stored, unstored: count what became of these: the reader's counts, and queries that ``fresh`` had no room for.
    """

    def __init__(self, max_queries: int, max_bytes: int | None = None) -> None:
        self.max_queries = max_queries
        self._max_bytes = max_queries * BYTES_PER_QUERY if max_bytes is None else max_bytes
        # Ids grow, so the last id that was evicted or has expired tells about all ids before it.
        self.last_evicted = -1
        self._last_over: dict[float, int] = {}
        self._by_id: dict[int, Query] = {}
        self._order: deque[Query] = deque()
        # The oldest query has not expired before this.
        self._next_over_s = 0.0
        self.size_bytes = 0
        self.evicted = 0
        self.fresh: list[Query] | None = None
        self.stored = self.unstored = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def remember(self, query: Query, now_s: float) -> None:
        """Keep ``query`` with its outputs for its application's time to live."""
        self._by_id[query.id] = query
        order = self._order
        order.append(query)
        self.size_bytes += query_bytes(query)
        if self.fresh is not None:
            self._note(query)
        if now_s >= self._next_over_s:
            # Two for each new query, so that expired queries become fewer even while more arrive.
            for _ in range(2):
                if order and _over_s(order[0]) <= now_s:
                    self._forget_oldest()
            self._next_over_s = _over_s(order[0]) if order else 0.0
        if self.size_bytes > self._max_bytes or len(order) > self.max_queries:
            self._evict()

    def grow(self, query_id: int, size_bytes: int) -> None:
        """Count an output that came after the query was remembered."""
        query = self._by_id.get(query_id)
        if query is not None:
            self.size_bytes += size_bytes
            if self.fresh is not None:
                self._note(query)
            if self.size_bytes > self._max_bytes:
                self._evict()

    def find(self, query_id: int, now_s: float) -> Query | None:
        """Return the query with this id, if it is still kept and has not expired."""
        while self._order and _over_s(self._order[0]) <= now_s:
            self._forget_oldest()
        query = self._by_id.get(query_id)
        return None if query is None or _over_s(query) <= now_s else query

    def why_not(self, query_id: int, ttl_s: float) -> Literal["over", "evicted", "unanswered"]:
        """Return why a query of an application with this time to live is not found."""
        if query_id <= self._last_over.get(ttl_s, -1):
            return "over"
        return "evicted" if query_id <= self.last_evicted else "unanswered"

    def statistics(self, now_s: float) -> FeedbackWindowStatistics:
        age_s = max(now_s - self._order[0].arrival_s, 0.0) if self._order else 0.0
        return FeedbackWindowStatistics(
            len(self._by_id),
            self.max_queries,
            self.size_bytes,
            self._max_bytes,
            self.evicted,
            age_s,
            self.stored,
            self.unstored,
        )

    def _note(self, query: Query) -> None:
        if self.fresh is not None and len(self.fresh) < MAX_FRESH:
            self.fresh.append(query)
        else:
            self.unstored += 1

    def _evict(self) -> None:
        by_id, order, size_bytes, last = self._by_id, self._order, self.size_bytes, self.last_evicted
        most_bytes, evicted = self._max_bytes, 0
        least = max(int(len(order) * EVICTED_PART), len(order) - self.max_queries)
        while evicted < least or size_bytes > most_bytes:
            query = order.popleft()
            query_id = query.id
            del by_id[query_id]
            if query_id > last:
                last = query_id
            size_bytes -= query_bytes(query)
            evicted += 1
        self.evicted += evicted
        self.size_bytes, self.last_evicted = size_bytes, last

    def _forget_oldest(self) -> None:
        query = self._order.popleft()
        del self._by_id[query.id]
        self.size_bytes -= query_bytes(query)
        ttl_s = query.owner.feedback_ttl_s
        if len(self._last_over) >= MAX_TTLS:
            self._last_over.clear()
        self._last_over[ttl_s] = max(self._last_over.get(ttl_s, -1), query.id)


def _over_s(query: Query) -> float:
    return query.arrival_s + query.owner.feedback_ttl_s


def query_bytes(query: Query) -> int:
    """Return a query's size. Computing it twice is cheaper than the memory to keep it."""
    size = QUERY_OVERHEAD_BYTES + (0 if query.row is None else len(query.row))
    if query.context is not None:
        # A context is up to a thousand characters of a client's choice, which take four bytes if one is an emoji.
        size += len(query.context) * (1 if query.context.isascii() else 4)
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


def output_bytes(*outputs: Output) -> int:
    """Return the size of outputs other than the first."""
    return sum(map(len, outputs)) + OUTPUT_OVERHEAD_BYTES * len(outputs)
