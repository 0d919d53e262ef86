"""All workers asked at once: those that do not answer as they should are left out."""

import asyncio
from pathlib import Path

from clipper.control.messages import AnyCommand, AnyReply, Draining, GetStatistics, Statistics
from clipper.supervisor.workers.workers import Workers
from tests.supervisor.stub_host import statistics
from tests.worker_stand_in import StandIn, listening


class Answering(StandIn):
    def __init__(self, folder: Path, index: int, *, is_outdated: bool = False) -> None:
        super().__init__(folder, index)
        self.process.is_outdated = is_outdated
        self._index = index

    async def answer(self, command: AnyCommand) -> AnyReply:
        return Statistics(statistics(self._index, 1))


class Lying(Answering):
    async def answer(self, command: AnyCommand) -> AnyReply:
        return Draining()


def test_who_lies_is_left_out_and_who_runs_other_code_is_asked_too(tmp_path: Path) -> None:
    answering = [Lying(tmp_path, 0), Answering(tmp_path, 1, is_outdated=True), Answering(tmp_path, 2)]

    async def ask() -> list[int]:
        async with listening(answering):
            workers = Workers(lambda index, _: answering[index].process, len(answering))
            return [one.index for one in await workers.statistics((), ())]

    assert asyncio.run(ask()) == [1, 2]


class Silent(Answering):
    async def answer(self, command: AnyCommand) -> AnyReply:
        await asyncio.Event().wait()
        raise AssertionError


def test_who_hangs_is_not_waited_for_once_another_has_told(tmp_path: Path) -> None:
    asked = [Answering(tmp_path, 0), Silent(tmp_path, 1)]

    async def ask() -> int | None:
        async with listening(asked), asyncio.timeout(10.0):
            workers = Workers(lambda index, _: asked[index].process, len(asked))
            found = await workers.ask_until(GetStatistics((), ()), lambda _: True, timeout_s=100.0)
            return None if found is None else found.worker.index

    assert asyncio.run(ask()) == 0
