"""Input that a connection has read but not taken in yet."""

from collections.abc import Callable

from clipper.frontend.budget import Budget
from clipper.frontend.door import Door
from clipper.frontend.limits import GIVES_WAY_AFTER_S

_NEVER_S = float("inf")


def _take_nothing(data: bytes) -> None:
    """A closed connection may still have its turn at the door."""


class Held:
    """Input that waits: for its turn at the door, as its ``Visitor``, or until the client reads its answers.

    Attributes:
        data: the bytes; they count against the budget.
        arrived_s: when the first of them was read, or the input that was taken in last; 0 if none ever came.
        patience_s, asks: see ``Visitor``.
        is_late: whether the input that is being taken in has waited too long.
        is_the_last: whether the client has sent EOF.
    """

    __slots__ = (
        "_budget",
        "_door",
        "_made_s",
        "_take",
        "_waits",
        "arrived_s",
        "asks",
        "data",
        "is_late",
        "is_the_last",
        "patience_s",
    )

    def __init__(self, budget: Budget, door: Door, take: Callable[[bytes], None], made_s: float) -> None:
        """``take`` takes in the input; it may hold part of it again. ``made_s``: when the connection was made."""
        self._budget, self._door, self._take, self._made_s = budget, door, take, made_s
        self.data = b""
        self.arrived_s = 0.0
        self.patience_s = _NEVER_S
        self.asks: object = None
        self.is_late = self.is_the_last = self._waits = False

    @property
    def gives_way_from_s(self) -> float:
        """From when on an idle connection may give way: see ``giving_way``."""
        return self.arrived_s + GIVES_WAY_AFTER_S if self.arrived_s else self._made_s

    def set(self, data: bytes) -> None:
        self._budget.held_bytes += len(data) - len(self.data)
        self.data = data

    def end(self) -> None:
        """The connection was lost: drop the input, and the callback, which would form a reference cycle."""
        self.set(b"")
        self._take = _take_nothing

    def wait(self) -> None:
        """Queue at the door, unless it is queued already."""
        if not self._waits:
            self._waits = True
            self._door.wait(self)

    def enter(self, *, is_late: bool) -> None:
        self._waits = False
        data = self.data
        self.set(b"")
        self.is_late = is_late
        self.asks = None  # it would keep a removed application in memory
        self._take(data)
        self.is_late = False
