"""Messages that are on their way: who sends one slowly must not hold what others need."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from clipper.errors import ClipperError, Overloaded, RequestTimeout
from clipper.frontend import limits

T = TypeVar("T")

# A message that has been coming for longer is large or slow.
SLOW_S = 0.1
LOOK_EVERY_S = 0.1


class Reads:
    """Bounds the messages that take long to come, since what has come of them cannot be seen nor counted.

    Where there are more than ``most_slow``, those go that have taken the longest; none takes longer than a request may.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.most_slow = 1
        # In the order in which they began.
        self._begun: dict[asyncio.Task[object], float] = {}
        self._refused: dict[asyncio.Task[object], ClipperError] = {}
        self._is_looking = False

    async def read(self, message: Awaitable[T]) -> T:
        """Return what comes.

        Raises:
            RequestTimeout, Overloaded: it takes too long, or others do.
        """
        task = asyncio.current_task()
        assert task is not None
        self._begun[task] = self._loop.time()
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(LOOK_EVERY_S, self._look)
        try:
            return await message
        except asyncio.CancelledError:
            refused = self._refused.get(task)
            if refused is None:
                raise
            task.uncancel()
            raise refused from None
        finally:
            del self._begun[task]
            self._refused.pop(task, None)

    def _look(self) -> None:
        now_s = self._loop.time()
        slow = [task for task, begun_s in self._begun.items() if now_s - begun_s > SLOW_S]
        timeout_s = limits.REQUEST_TIMEOUT_SWEEPS * limits.SWEEP_S
        for index, task in enumerate(slow):
            if now_s - self._begun[task] > timeout_s:
                self._refuse(task, RequestTimeout(f"message did not arrive within {timeout_s:.0f} s"))
            elif len(slow) - index > self.most_slow:
                self._refuse(task, Overloaded("too many large requests are arriving at once"))
        self._is_looking = bool(self._begun)
        if self._is_looking:
            self._loop.call_later(LOOK_EVERY_S, self._look)

    def _refuse(self, task: "asyncio.Task[object]", why: ClipperError) -> None:
        if task not in self._refused:
            self._refused[task] = why
            task.cancel()
