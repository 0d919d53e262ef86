"""Work on many lists at once, in visits of the turn's budget, however many there are."""

import asyncio
from collections.abc import Callable, Iterator

from clipper.turn_budget import Backlog, TurnBudget

_Job = tuple[Iterator[object], "asyncio.Future[None]"]


class Slices:
    """Does jobs a step at a time; each visit goes on with the next job."""

    def __init__(self, has_room: Callable[[], bool], turn: TurnBudget) -> None:
        """``has_room``: whether a step may be done. While it may not, jobs wait for ``resume``."""
        self._jobs = Backlog[_Job](turn, _step, in_turns=True, may_go_on=has_room)

    def do(self, steps: Iterator[object]) -> "asyncio.Future[None]":
        """Do all steps: some now if this turn has time, and the rest in later turns.

        Args:
            steps: each takes a fraction of a visit.

        Returns:
            A future that is done when they are, and fails with what a step raised. If it is cancelled they end.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.begin((steps, future))
        return future

    def resume(self) -> None:
        """There is room again."""
        self._jobs.go_on()


def _step(job: _Job, end_s: float) -> bool:
    """Do one step; return whether that was the last."""
    steps, future = job
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
