"""The queries of the recent past, by id, so that feedback can be joined with what was predicted."""

from collections import deque

from clipper.selection.query import Query

# What a query costs beside its input and outputs: itself, its dicts and numbers, its places here.
QUERY_OVERHEAD_BYTES = 900


class _Kept:
    """A query's place in the table."""

    __slots__ = ("query", "size_bytes", "until_s")

    def __init__(self, query: Query, until_s: float, size_bytes: int) -> None:
        self.query = query
        self.until_s = until_s
        self.size_bytes = size_bytes


class JoinTable:
    """Keeps each query until its time is over, and fewer than ``max_bytes`` of them: beyond that the oldest go first.

    Queries of several applications, with several times to live, share it.

    Attributes:
        evicted: queries that had to go before their time; feedback on them is answered as unknown.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_id: dict[int, _Kept] = {}
        self._order: deque[_Kept] = deque()
        self.size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def remember(self, query: Query, now_s: float, until_s: float) -> None:
        """Keep ``query``, with the outputs that it has, until ``until_s``."""
        size = QUERY_OVERHEAD_BYTES + len(query.row)
        for output in query.outputs.values():
            size += len(output)
        if query.shadow_outputs:
            size += sum(map(len, query.shadow_outputs.values()))
        order = self._order
        kept = self._by_id[query.id] = _Kept(query, until_s, size)
        order.append(kept)
        self.size_bytes += size
        # Two for one, so that those whose time is over become fewer even while more come.
        for _ in range(2):
            if order and order[0].until_s <= now_s:
                self._forget_oldest()
        if self.size_bytes > self._max_bytes:
            self._evict()

    def grow(self, query_id: int, size_bytes: int) -> None:
        """A query has got one more output since it was remembered."""
        kept = self._by_id.get(query_id)
        if kept is not None:
            kept.size_bytes += size_bytes
            self.size_bytes += size_bytes
            self._evict()

    def find(self, query_id: int, now_s: float) -> Query | None:
        """The query of that id, if it is still kept and its time is not over."""
        while self._order and self._order[0].until_s <= now_s:
            self._forget_oldest()
        kept = self._by_id.get(query_id)
        return None if kept is None or kept.until_s <= now_s else kept.query

    def _evict(self) -> None:
        while self.size_bytes > self._max_bytes:
            self._forget_oldest()
            self.evicted += 1

    def _forget_oldest(self) -> None:
        kept = self._order.popleft()
        del self._by_id[kept.query.id]
        self.size_bytes -= kept.size_bytes
