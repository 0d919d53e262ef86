"""All workers asked at once: what is asked of them, and those that do not answer."""

import asyncio
from pathlib import Path

from clipper.control.messages import AnyCommand, AnyReply, BatchLimits, Draining, GetBatchLimits
from clipper.supervisor.workers.workers import VERSIONS_AT_ONCE, Workers
from clipper.types import ModelId
from worker_stand_in import StandIn, listening

VERSIONS = [ModelId("m", str(number)) for number in range(VERSIONS_AT_ONCE + 1)]


class Answering(StandIn):
    """Its replicas have this limit."""

    def __init__(self, folder: Path, index: int, limit: int, *, is_outdated: bool = False) -> None:
        super().__init__(folder, index)
        self.process.is_outdated = is_outdated
        self.asked: list[int] = []
        self._limit = limit

    async def answer(self, command: AnyCommand) -> AnyReply:
        assert isinstance(command, GetBatchLimits)
        self.asked.append(len(command.versions))
        return BatchLimits({f"{version}#1.g1": self._limit for version in command.versions})


class Lying(Answering):
    async def answer(self, command: AnyCommand) -> AnyReply:
        await super().answer(command)
        return Draining()


def limits(*answering: Answering) -> dict[str, int]:
    async def ask() -> dict[str, int]:
        async with listening(answering):
            workers = Workers(lambda index, _: answering[index].process, len(answering))
            return await workers.batch_limits(VERSIONS)

    return asyncio.run(ask())


def test_the_batch_limit_of_a_replica_is_the_smallest_over_the_workers(tmp_path: Path) -> None:
    large, small = Answering(tmp_path, 0, 64), Answering(tmp_path, 1, 8)
    assert limits(large, small) == {f"{version}#1.g1": 8 for version in VERSIONS}
    assert large.asked == small.asked == [VERSIONS_AT_ONCE, 1]


def test_who_lies_or_may_not_know_the_command_is_left_out(tmp_path: Path) -> None:
    lying, outdated = Lying(tmp_path, 0, 1), Answering(tmp_path, 1, 1, is_outdated=True)
    assert limits(lying, outdated, Answering(tmp_path, 2, 8)) == {f"{version}#1.g1": 8 for version in VERSIONS}
    assert lying.asked == [VERSIONS_AT_ONCE], "it is asked no further"
    assert outdated.asked == []
