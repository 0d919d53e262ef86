"""The queries of the recent past, by id, so that feedback can be joined with what was predicted."""

from collections import deque

from clipper.selection.query import Query

# What a query costs beside its input: itself, its dicts and numbers, its outputs, its places here.
QUERY_OVERHEAD_BYTES = 900


class JoinTable:
    """Keeps each query until its time is over, and fewer than ``max_bytes`` of them: beyond that the oldest go first.

    Queries of several applications, with several times to live, share it.

    Attributes:
        evicted: queries that had to go before their time; feedback on them is answered as unknown.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_id: dict[int, Query] = {}
        self._order: deque[tuple[int, float]] = deque()
        self._size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def remember(self, query: Query, until_s: float) -> None:
        """Keep ``query`` until ``until_s``. Those whose time is over are forgotten on the way."""
        self._by_id[query.id] = query
        self._order.append((query.id, until_s))
        self._size_bytes += len(query.row) + QUERY_OVERHEAD_BYTES
        if self._order[0][1] <= query.arrival_s:
            self._forget_oldest()
        while self._size_bytes > self._max_bytes:
            self._forget_oldest()
            self.evicted += 1

    def find(self, query_id: int, now_s: float) -> Query | None:
        """The query of that id, if it is still kept and its time is not over."""
        while self._order and self._order[0][1] <= now_s:
            self._forget_oldest()
        return self._by_id.get(query_id)

    def _forget_oldest(self) -> None:
        query_id, _ = self._order.popleft()
        query = self._by_id.pop(query_id)
        self._size_bytes -= len(query.row) + QUERY_OVERHEAD_BYTES
