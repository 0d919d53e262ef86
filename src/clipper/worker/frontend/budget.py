"""The memory that requests may hold in a worker."""

from collections.abc import Callable

from clipper.worker.frontend import limits

# The cause for a request that cannot be read, or read on.
NO_ROOM = "too many large requests are arriving at once: try again in a moment"


class Budget:
    """Counts the bytes that requests hold, against a bound. ``make_room`` ends a request, if one gives way."""

    __slots__ = ("_is_making_room", "bound_bytes", "held_bytes", "make_room")

    def __init__(self, bound_bytes: int = limits.MAX_HELD_BYTES) -> None:
        self.bound_bytes = bound_bytes
        self.held_bytes = 0
        self.make_room: Callable[[], bool] = lambda: False
        self._is_making_room = False

    def has_room(self, size_bytes: int) -> bool:
        """Whether requests may hold this much more, after ending requests that give way."""
        if self.held_bytes + size_bytes <= self.bound_bytes:
            return True
        if not self._is_making_room:  # ending a request may call this again
            self._is_making_room = True
            try:
                while self.held_bytes + size_bytes > self.bound_bytes and self.make_room():
                    pass
            finally:
                self._is_making_room = False
        return self.held_bytes + size_bytes <= self.bound_bytes


class Untaken:
    """A client's unread answers: while writing to it is paused, or while an answer waits for an earlier one.
    ``last_taken_sweep``: when the client last had read ``LEAST_TAKEN_BYTES`` of them, or had nothing to read. A client
    that reads a byte a second could otherwise hold an answer for as long as it likes.
    """

    __slots__ = ("_budget", "_taken_bytes", "last_taken_sweep", "size_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken_bytes = 0
        self.size_bytes = 0
        self.last_taken_sweep = 0

    def count(self, size_bytes: int, sweep: int) -> None:
        self._budget.held_bytes += size_bytes - self.size_bytes
        self._taken_bytes += max(self.size_bytes - size_bytes, 0)
        if self._taken_bytes >= limits.LEAST_TAKEN_BYTES or not (self.size_bytes and size_bytes):
            self.last_taken_sweep = sweep
            self._taken_bytes = 0
        self.size_bytes = size_bytes
