"""Query ids, which contain the worker that gave them."""

from typing import ClassVar


class QueryIds:
    """Ids that are unique over all workers and restarts, and below 2^53 so that every JSON reader keeps them exactly.

    The upper 20 bits are the worker's instance, which the supervisor counts; the lower 33 bits are the worker's own
    counter. The counter wraps after two days at 50,000 queries a second, when feedback on the first ids is long over.
    An instance that is started again counts on from another 64th of the counter's range than before.
    """

    COUNT_BITS: ClassVar[int] = 33
    RESTART_BITS: ClassVar[int] = 6

    def __init__(self, instance: int, restart: int = 0) -> None:
        """``restart``: how many times this instance was started before."""
        self._first = instance << self.COUNT_BITS
        self._last = self._first + (1 << self.COUNT_BITS) - 1
        part = restart % (1 << self.RESTART_BITS)
        self.next = self._first + (part << (self.COUNT_BITS - self.RESTART_BITS))

    def take(self) -> int:
        query_id = self.next
        self.next = query_id + 1 if query_id < self._last else self._first
        return query_id

    def has_given(self, query_id: int) -> bool:
        return self._first <= query_id < self.next

    @classmethod
    def instance_of(cls, query_id: int) -> int:
        return query_id >> cls.COUNT_BITS
