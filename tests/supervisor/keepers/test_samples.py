"""Workers are asked for a recent input once for all replicas of a model that start together."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clipper.control.messages import GetRecentInput, RecentInput
from clipper.errors import WrongInput
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.samples import Samples, read_sample
from clipper.supervisor.managers.caller import WARM_UP_ROWS
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.workers.workers import Workers
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType
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


def test_later_containers_are_told_what_earlier_ones_said() -> None:
    spec = VersionSpec("a", "import", "m:f")
    record = VersionRecord("m", "1", spec, Batching(), True, 1, 0.0, input_type="float64[4]")
    catalog = SimpleNamespace(versions={ModelId("m", "1"): record})
    samples = Samples(cast(Catalog, catalog), cast(Workers, AskedWorkers()))
    assert samples.known_type(ModelId("m", "1")) == "float64[4]"
    assert samples.known_type(ModelId("m", "2")) is None


def test_rows_of_a_table_may_have_columns_that_the_model_lacks() -> None:
    record = RecordType.parse("age: float64?, job: string")
    rows = RecordRows(record)
    table = [{"job": "x", "label": 1, "age": None}, {"job": "y", "age": 2}]
    assert read_sample(json.dumps(table), record) == [rows.row((None, b"x")), rows.row((2.0, b"y"))]
    assert read_sample(json.dumps(table[1]), record) == [rows.row((2.0, b"y"))]
    assert len(read_sample(json.dumps([table[1]] * 50), record)) == WARM_UP_ROWS
    for wrong in ("[1, 2]", "[]", '"x"', "3"):
        with pytest.raises(WrongInput, match="it is no record"):
            read_sample(wrong, record)


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
