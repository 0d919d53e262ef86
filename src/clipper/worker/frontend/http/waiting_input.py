"""The input that a connection has read but not taken in yet."""

from collections.abc import Callable
from typing import Protocol

from clipper.base.turn_budget import PATIENCE_SHARE_OF_SLO, TurnBudget
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.limits import GIVES_WAY_AFTER_S

_NEVER_S = float("inf")


class Asked(Protocol):
    """The application whose queries wait in one line."""

    @property
    def slo_s(self) -> float: ...


class Held:
    """Input that waits: for its turn, as its ``Visitor``, or until the client reads its answers.

    Attributes:
        data: the bytes; they count against the budget.
        start: where the input begins in ``data``; the bytes before it were taken in. Copying the rest for each request
            would take quadratic time.
        arrived_s: when the first of these bytes, or the last input, was read; 0 if none ever came.
        patience_s, asks: see ``Visitor``.
        is_late: whether the input that is being taken in has waited too long.
        is_the_last: whether the client has sent EOF.
        is_rest: whether it remains from an earlier visit, and so waits behind new input of other connections.
        waits: whether it is queued for its turn.
    """

    __slots__ = (
        "_budget",
        "_made_s",
        "_take",
        "_turn",
        "arrived_s",
        "asks",
        "data",
        "is_late",
        "is_rest",
        "is_the_last",
        "patience_s",
        "start",
        "waits",
    )

    def __init__(self, budget: Budget, turn: TurnBudget, take: Callable[[bytes, int], None], made_s: float) -> None:
        """``take`` takes in data from a place on, and may hold a part. ``made_s``: when the connection was made."""
        self._budget, self._turn, self._take, self._made_s = budget, turn, take, made_s
        self.data = b""
        self.start = 0
        self.arrived_s = 0.0
        self.patience_s = _NEVER_S
        self.asks: object = None
        self.is_late = self.is_rest = self.is_the_last = self.waits = False

    @property
    def gives_way_from_s(self) -> float:
        """The time from which an idle connection may give way: see ``giving_way``."""
        return self.arrived_s + GIVES_WAY_AFTER_S if self.arrived_s else self._made_s

    @property
    def size_bytes(self) -> int:
        return len(self.data) - self.start

    def set(self, data: bytes, start: int) -> None:
        self._budget.held_bytes += len(data) - len(self.data)
        self.data = data
        self.start = start

    def end(self) -> None:
        """Take in nothing more: the connection was lost. The callback would form a reference cycle with it."""
        self.set(b"", 0)
        self._take = lambda data, start: None

    def wait(self, asks: Asked | None) -> None:
        """Queue for a turn, once. ``asks`` is the application of the first query, if it is known to be one."""
        if self.waits:
            return
        self.waits = True
        self.asks, self.patience_s = asks, _NEVER_S if asks is None else asks.slo_s * PATIENCE_SHARE_OF_SLO
        if self.is_rest:
            self._turn.wait_behind(self)
        else:
            self._turn.wait(self)

    def enter(self, *, is_late: bool) -> None:
        self.waits = False
        data, start = self.data, self.start
        self.set(b"", 0)
        self.is_late = is_late or (self.is_rest and self._turn.now_s() - self.arrived_s > self.patience_s)
        self.asks = None  # it would keep a removed application in memory
        self._take(data, start)
        self.is_late = False
