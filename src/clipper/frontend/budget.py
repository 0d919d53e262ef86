"""The memory that requests may hold in a worker."""

from clipper.frontend import limits


class Budget:
    """Counts the bytes that requests hold, against a bound."""

    __slots__ = ("bound_bytes", "held_bytes")

    def __init__(self, bound_bytes: int = limits.MAX_HELD_BYTES) -> None:
        self.bound_bytes = bound_bytes
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        return self.held_bytes + size_bytes <= self.bound_bytes


class Untaken:
    """One client's unread answers: while writing to it is paused, or while an answer waits for an earlier one.

    Attributes:
        last_taken_sweep: when the client last read some, or had nothing to read.
    """

    __slots__ = ("_budget", "last_taken_sweep", "size_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size_bytes = 0
        self.last_taken_sweep = 0

    def count(self, size_bytes: int, sweep: int) -> None:
        self._budget.held_bytes += size_bytes - self.size_bytes
        if size_bytes < self.size_bytes or not self.size_bytes:
            self.last_taken_sweep = sweep
        self.size_bytes = size_bytes
