"""Tells many waiters that they will get no output, over several turns of the loop."""

import asyncio
from collections import deque
from collections.abc import Iterable

from clipper.values.types import ModelId
from clipper.worker.abstraction.work import Waiter, Work

# When a whole queue expires, a turn of the loop notifies this many queries. That takes a millisecond, as each
# notification writes an answer. A full queue in a single turn took 70 to 90 ms, in which nobody else was answered.
MAX_NOTIFIED = 64


class FailureNotices:
    """Notifies the waiters of a version, at most as many as its queue may hold."""

    def __init__(self, model: str, loop: asyncio.AbstractEventLoop) -> None:
        self._model = model
        self._loop = loop
        self._waiting: deque[tuple[Waiter, str, str]] = deque()
        self._is_due = False

    def drop(self, works: Iterable[Work], code: str, message: str) -> None:
        """Fail many works, maybe a whole queue. All of them leave the cache at once, so that no query joins them."""
        self._waiting += [(waiter, code, message) for work in works for waiter in work.forget() if not waiter.done]
        if not self._is_due:
            self._notify()

    def _notify(self) -> None:
        waiting = self._waiting
        now = [waiting.popleft() for _ in range(min(len(waiting), MAX_NOTIFIED))]
        # Schedule the next turn before calling any waiter: a waiter may drop more work.
        self._is_due = bool(waiting)
        if waiting:
            self._loop.call_soon(self._notify)
        for waiter, code, message in now:
            if not waiter.done:
                waiter.on_failure(self._model, code, message)


def why_no_replica(model: ModelId, *, is_asleep: bool, is_starting: bool) -> str:
    """Return the message for a query whose model has no connected replica."""
    if is_asleep:
        return f"{model} was asleep, and has no replica yet"
    if is_starting:
        return f"a replica of {model} is starting, and no other is connected"
    return f"no replica of {model} is connected"
