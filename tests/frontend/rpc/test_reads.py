"""Messages that are long in coming, and who has to go for others."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from clipper.errors import Overloaded, RequestTimeout
from clipper.frontend import limits
from clipper.frontend.rpc.reads import Reads


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time goes on by itself only as far as the next timer."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, *args: object, **settings: object) -> asyncio.TimerHandle:  # type: ignore[override]
        self.due_s = when
        return super().call_at(when, *args, **settings)  # type: ignore[arg-type]

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds


def run(test: Callable[[Clock, Reads], Awaitable[None]]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clock)
        await test(loop, Reads(loop))

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(body())  # type: ignore[arg-type]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def begin(loop: Clock, reads: Reads, count: int) -> list["asyncio.Task[bytes]"]:
    return [loop.create_task(reads.read(loop.create_future())) for _ in range(count)]


def test_the_oldest_of_too_many_go() -> None:
    async def test(loop: Clock, reads: Reads) -> None:
        reads.most_slow = 2
        old = begin(loop, reads, 3)
        await turns()
        loop.pass_by(0.15)
        new = begin(loop, reads, 3)
        await turns()
        loop.pass_by(0.05)
        await turns()
        # Of the new ones none has come for long enough to count.
        assert [task.done() for task in (*old, *new)] == [True, False, False, False, False, False]
        with pytest.raises(Overloaded):
            old[0].result()
        loop.pass_by(0.2)
        await turns()
        assert [task.done() for task in (*old, *new)] == [True, True, True, True, False, False]
        for task in new[1:]:
            task.cancel()

    run(test)


def test_none_takes_longer_than_a_request_may() -> None:
    async def test(loop: Clock, reads: Reads) -> None:
        (task,) = begin(loop, reads, 1)
        await turns()
        for _ in range(3):
            loop.pass_by(limits.REQUEST_TIMEOUT_SWEEPS * limits.SWEEP_S / 2)
            await turns()
        with pytest.raises(RequestTimeout):
            task.result()

    run(test)


def test_who_leaves_is_not_told_anything_else() -> None:
    async def test(loop: Clock, reads: Reads) -> None:
        (task,) = begin(loop, reads, 1)
        await turns()
        task.cancel()
        await turns()
        assert task.cancelled()
        # And the look that comes then finds nobody.
        loop.pass_by(60.0)
        await turns()

    run(test)
