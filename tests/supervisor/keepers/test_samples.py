"""Workers are asked for a recent input once for all replicas of a model that start together."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from clipper.control.messages import GetRecentInput, RecentInput
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.samples import Samples
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import InputType, ModelId

ROW = bytes(16)
TYPE = InputType.parse("float64[2]")


class AskedWorkers:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def ask_until(self, command: GetRecentInput, is_enough: Callable[[RecentInput], bool]) -> RecentInput | None:
        self.asked.append(command.model)
        await self.answers.wait()
        return RecentInput("float64[2]", ROW)


class OneOfEach:
    """A catalog with a version of each model that is asked for."""

    @property
    def versions(self) -> Any:
        spec = VersionSpec("a", "import", "m:f")
        return {ModelId(name, "1"): VersionRecord(name, "1", spec, Batching(), True, 1, 0.0) for name in "mn"}


def test_replicas_that_start_together_share_the_answer() -> None:
    async def run() -> None:
        workers = AskedWorkers()
        samples = Samples(cast(Catalog, OneOfEach()), cast(Workers, workers))
        finding = [asyncio.create_task(samples.find(ModelId(name, "1"), TYPE)) for name in "mmmn"]
        await asyncio.sleep(0)
        finding[0].cancel()  # one is stopped; the others go on
        await asyncio.sleep(0)
        workers.answers.set()
        found = await asyncio.gather(*finding, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert [cast(Any, one).row for one in found[1:]] == [ROW] * 3
        assert workers.asked == ["m", "n"]
        # Later ones ask again: the model may have been asked something else since.
        await asyncio.sleep(0)
        assert cast(Any, await samples.find(ModelId("m", "1"), TYPE)).row == ROW
        assert workers.asked == ["m", "n", "m"]

    asyncio.run(run())
