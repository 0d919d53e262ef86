"""Decides how much of an application's feedback a worker learns from at once, and which request is read next.

A client that has waited too long sends the same feedback again. So the worker has to learn soon from the feedback that
it lets in. Otherwise, under overload, it would learn only from senders that have left, and answer none in time.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from clipper.worker.frontend import limits

T = TypeVar("T", bound=Hashable)

# The target for the time from letting feedback in until it is learned. A Redis that writes its file once a second takes
# one second, and impatient clients wait for five.
TARGET_S = 2.0
# The least time over which learning is measured: a few transactions of the store.
MEASURED_S = 1.0
# The least number of pieces under way, so that a slow store still gets transactions large enough to be efficient. Even
# dozens of applications with this many each are learned from in seconds.
MIN_UNLEARNED = 200
# While learning is fast enough and requests wait, more is let in by this share each time.
GROWTH = 0.25
# Requests enter in order until one has waited for this long. Then feedback comes faster than it can be learned, and the
# latest request is next: its sender will wait for longest from now on.
IN_ORDER_S = 2.0
# A client that has waited for this long will wait for longer. Now and then the earliest request is next, so that
# clients that wait for their answers before they send more are all served; if its sender is about to leave, that time
# is lost.
PATIENT_S = 10.0
EARLIEST_EACH = 3
# The longest wait. Clipper's own client waits for twice as long in all.
MAX_WAIT_S = 30.0


class FeedbackLine(Generic[T]):
    """Decides how many pieces of feedback may be under way at once, and in which order waiting requests are let in.

    The bound is the number of pieces that are learned in ``TARGET_S``, by Little's law (J. D. C. Little, 1961): if *n*
    pieces are under way and *r* are learned a second, each takes *n / r*. The bound falls to *r* · ``TARGET_S`` when a
    piece took longer than that, and grows while no piece does and requests wait. ``unlearned``: the pieces under way:
    pieces that are read, or learned from.
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
        """Remove a request that waits no longer. Return whether it waited."""
        return self._waiting.pop(request, None) is not None

    def next(self, now_s: float) -> T | None:
        """Remove and return the request to let in now; None if there is no room, or no request."""
        if not self._waiting or not self.has_room:
            return None
        self._let_in += 1
        waited_s = now_s - next(iter(self._waiting.values()))
        is_earliest = waited_s <= IN_ORDER_S or (waited_s > PATIENT_S and self._let_in % EARLIEST_EACH == 0)
        return self._waiting.popitem(last=not is_earliest)[0]

    def overdue(self, now_s: float) -> list[T]:
        """Remove and return the requests that have waited for too long."""
        found: list[T] = []
        while self._waiting and now_s - next(iter(self._waiting.values())) > MAX_WAIT_S:
            found.append(self._waiting.popitem(last=False)[0])
        return found

    def take(self, pieces: int, now_s: float) -> None:
        """Note pieces that are under way from now on."""
        if not self.unlearned:
            self._measure_anew(now_s)
        self.unlearned += pieces

    def give_back(self, pieces: int) -> None:
        """Note pieces that are no longer under way, without having been learned from."""
        self.unlearned -= pieces

    def learned(self, pieces: int, taken_s: float, now_s: float) -> None:
        """Note that pieces which were taken at ``taken_s`` are learned."""
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
