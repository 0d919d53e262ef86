"""Decides how much of an application's feedback a worker learns from at once, and which request is read next.

A client that has waited for as long as it will sends the same feedback again. So what is let in has to be learned soon,
or a worker that gets more than it can learn spends itself on feedback whose senders have left: none of them would be
answered in time, however much was learned.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from clipper.worker.frontend import limits

T = TypeVar("T", bound=Hashable)

# What is let in is to be learned within this. A Redis that writes its file once a second takes one of them, and clients
# that are in a hurry wait for five.
TARGET_S = 2.0
# Over this time, at least, learning is measured: a few transactions of the store.
MEASURED_S = 1.0
# A slow store still gets transactions of a size that pays. Dozens of applications, each with so many under way, are
# learned from in seconds, too.
MIN_UNLEARNED = 200
# While learning is fast enough and requests wait, more is let in by this share each time.
GROWTH = 0.25
# Requests come in their order until one has waited for this long. Then more has come than can be learned, and the
# latest is next: its sender waits for longest from now on.
IN_ORDER_S = 2.0
# Who has waited for this long will wait for longer. In one of so many times the earliest is next, so that clients that
# wait for their answer before they send more are all served; if its sender is about to leave, that time is lost.
PATIENT_S = 10.0
EARLIEST_EACH = 3
# Nobody waits for longer than this; Clipper's own client waits for twice as long in all.
MAX_WAIT_S = 30.0


class FeedbackLine(Generic[T]):
    """Decides how many pieces of feedback may be under way at once, and in which order waiting requests are let in.

    The bound is what was learned in ``TARGET_S``, by Little's law (J. D. C. Little, 1961): of *n* pieces under way, of
    which *r* are learned a second, each takes *n / r*. It falls to *r* · ``TARGET_S`` when something took longer than
    that, and grows while nothing does and requests wait.

    Attributes:
        unlearned: pieces that are under way: that are read, or learned from.
    """

    def __init__(self, max_unlearned: int = limits.MAX_UNLEARNED) -> None:
        self.unlearned = 0
        self._max_unlearned = max_unlearned
        self._bound = max_unlearned
        self._waiting: OrderedDict[T, float] = OrderedDict()
        self._let_in = 0
        self._since_s = 0.0
        self._learned = 0
        self._was_late = False

    @property
    def has_room(self) -> bool:
        return self.unlearned < self._bound

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def wait(self, request: T, now_s: float) -> None:
        self._waiting[request] = now_s

    def leave(self, request: T) -> bool:
        """A request waits no longer. Return whether it did."""
        return self._waiting.pop(request, None) is not None

    def next(self, now_s: float) -> T | None:
        """Return the request that is let in now, which waits no longer; None if there is no room, or no request."""
        if not self._waiting or not self.has_room:
            return None
        self._let_in += 1
        waited_s = now_s - next(iter(self._waiting.values()))
        is_earliest = waited_s <= IN_ORDER_S or (waited_s > PATIENT_S and self._let_in % EARLIEST_EACH == 0)
        return self._waiting.popitem(last=not is_earliest)[0]

    def overdue(self, now_s: float) -> list[T]:
        """Return the requests that have waited for too long, which wait no longer."""
        found: list[T] = []
        while self._waiting and now_s - next(iter(self._waiting.values())) > MAX_WAIT_S:
            found.append(self._waiting.popitem(last=False)[0])
        return found

    def take(self, pieces: int, now_s: float) -> None:
        """Pieces are under way from now on."""
        if not self.unlearned:
            self._measure_anew(now_s)
        self.unlearned += pieces

    def give_back(self, pieces: int) -> None:
        """Pieces are under way no longer, without having been learned from."""
        self.unlearned -= pieces

    def learned(self, pieces: int, taken_s: float, now_s: float) -> None:
        """Pieces that were taken at ``taken_s`` are learned."""
        self.unlearned -= pieces
        self._learned += pieces
        self._was_late |= now_s - taken_s > TARGET_S
        took_s = now_s - self._since_s
        if took_s < MEASURED_S:
            return
        if self._was_late:
            self._bound = min(self._bound, max(MIN_UNLEARNED, int(self._learned / took_s * TARGET_S)))
        elif self._waiting:
            self._bound = min(self._max_unlearned, self._bound + int(self._bound * GROWTH))
        self._measure_anew(now_s)

    def _measure_anew(self, now_s: float) -> None:
        self._since_s, self._learned, self._was_late = now_s, 0, False
