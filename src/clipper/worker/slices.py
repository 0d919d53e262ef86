"""Work on many lists at once that holds the loop for a slice of time in each of its turns, however many there are."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

# Lists are worked on for this long before other events get their turn.
SLICE_S = 0.002

_Job = tuple[Iterator[object], "asyncio.Future[None]"]


class Slices:
    """Does jobs a step at a time; in each turn of the loop that there is work, the next job begins."""

    def __init__(self, has_room: Callable[[], bool], clock_s: Callable[[], float] = time.perf_counter) -> None:
        """``has_room``: whether a step may be done. While it may not, jobs wait for ``resume``."""
        self._has_room = has_room
        self._clock_s = clock_s
        self._jobs: deque[_Job] = deque()
        # Whether this turn had its slice, or the next turn will have one.
        self._is_due = False

    def do(self, steps: Iterator[object]) -> "asyncio.Future[None]":
        """Do all steps: a first slice now if this turn has had none, and the rest in later turns.

        Args:
            steps: each takes a fraction of a slice.

        Returns:
            A future that is done when they are, and fails with what a step raised. If it is cancelled they end.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.append((steps, future))
        if not self._is_due:
            self._work()
        return future

    def resume(self) -> None:
        """There is room again."""
        if self._jobs and not self._is_due:
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self._is_due = True
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_due = False
        if self._jobs and self._has_room():
            self._work()

    def _work(self) -> None:
        self._wait_for_turn()
        end_s = self._clock_s() + SLICE_S
        while self._jobs and self._has_room():
            if self._step(*self._jobs[0]):
                self._jobs.popleft()
            if self._clock_s() >= end_s:
                self._jobs.rotate(-1)
                return

    def _step(self, steps: Iterator[object], future: "asyncio.Future[None]") -> bool:
        """Do one step; return whether that was the last."""
        if future.done():
            return True
        try:
            next(steps)
        except StopIteration:
            future.set_result(None)
            return True
        except Exception as error:  # noqa: BLE001  # whoever waits gets it
            future.set_exception(error)
            return True
        return False
