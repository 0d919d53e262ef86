"""What a connection has read and not taken in yet."""

from collections.abc import Callable

from clipper.frontend.budget import Budget
from clipper.frontend.door import Door

_NEVER_S = float("inf")


def _take_nothing(data: bytes) -> None:
    """It may still have its turn at the door."""


class Held:
    """The bytes that wait: for their turn at the door, as its ``Visitor``, or until the client takes its answers.

    Attributes:
        data: what waits; it counts for the budget.
        arrived_s: when the first of it was read, or what was last taken in.
        patience_s, asks: see ``Visitor``.
        is_late: what is being taken in has waited for too long.
        is_the_last: the client has said that it sends no more.
    """

    __slots__ = (
        "_budget",
        "_door",
        "_take",
        "_waits",
        "arrived_s",
        "asks",
        "data",
        "is_late",
        "is_the_last",
        "patience_s",
    )

    def __init__(self, budget: Budget, door: Door, take: Callable[[bytes], None]) -> None:
        """``take``: takes in what waited; it may hold some of it again."""
        self._budget, self._door, self._take = budget, door, take
        self.data = b""
        self.arrived_s = 0.0
        self.patience_s = _NEVER_S
        self.asks: object = None
        self.is_late = self.is_the_last = self._waits = False

    def set(self, data: bytes) -> None:
        self._budget.held_bytes += len(data) - len(self.data)
        self.data = data

    def end(self) -> None:
        """The connection has gone: let go of what waits, and of who would take it, since each would keep the other."""
        self.set(b"")
        self._take = _take_nothing

    def wait(self) -> None:
        """Wait at the door, where that is not so already."""
        if not self._waits:
            self._waits = True
            self._door.wait(self)

    def enter(self, *, is_late: bool) -> None:
        self._waits = False
        data = self.data
        self.set(b"")
        self.is_late = is_late
        self.asks = None  # or an application that is gone would be kept
        self._take(data)
        self.is_late = False
