"""What requests may hold of a worker's memory."""

from clipper.frontend import limits


class Budget:
    """The bytes that requests hold of a worker's memory, of which there is a bound."""

    __slots__ = ("bound_bytes", "held_bytes")

    def __init__(self, bound_bytes: int = limits.MAX_HELD_BYTES) -> None:
        self.bound_bytes = bound_bytes
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        return self.held_bytes + size_bytes <= self.bound_bytes


class Untaken:
    """What one client has not taken of its answers, while writing to it is paused or one waits for an earlier one.

    Attributes:
        last_taken_sweep: when the client last took some, or had nothing to take.
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
