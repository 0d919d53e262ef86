import asyncio
import time

from clipper.worker.__main__ import PreciseLoop


def test_the_loops_clock_is_the_systems_and_its_timers_follow_it() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        # Stock uvloop tells the whole millisecond in which the loop's turn began.
        before_s, now_s, after_s = time.monotonic(), loop.time(), time.monotonic()
        assert before_s <= now_s <= after_s
        fired = loop.create_future()
        loop.call_at(loop.time() + 0.005, fired.set_result, None)
        await fired
        # At most the half of a millisecond that its timers are rounded by.
        assert loop.time() >= now_s + 0.0045

    with asyncio.Runner(loop_factory=PreciseLoop) as runner:
        runner.run(scenario())
