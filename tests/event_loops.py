"""Running a coroutine so that nothing it leaves behind goes unnoticed, and a loop whose clock a test can move."""

import asyncio
import gc
import math
from collections.abc import Callable, Coroutine
from typing import Any


class ShiftedLoop(asyncio.SelectorEventLoop):
    """A real loop with real sockets; ``advance`` makes its clock jump, so that no test waits for a deadline."""

    shift_s = 0.0

    def time(self) -> float:
        return super().time() + self.shift_s

    def advance(self, seconds: float) -> None:
        self.shift_s += seconds


def run_clean(
    main: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop] = ShiftedLoop
) -> None:
    """Run in debug mode; fail if a task is left over or an exception was given to nobody.

    Without debug mode's warnings of callbacks that take long: a busy machine adds them to what a test reads of a log.
    """
    contexts: list[dict[str, Any]] = []
    with asyncio.Runner(debug=True, loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        loop.slow_callback_duration = math.inf
        loop.set_exception_handler(lambda _loop, context: contexts.append(context))
        runner.run(_checked(main))
        gc.collect()
    assert contexts == []


async def _checked(main: Coroutine[Any, Any, None]) -> None:
    # Not asyncio.timeout: its clock is the loop's, which the test may move.
    await main
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left over: {left}"


async def turn_over(turns: int = 5) -> None:
    """Let the loop run what is due, and what that makes due."""
    for _ in range(turns):
        await asyncio.sleep(0)
