"""What queries leave behind: nothing that the garbage collector would have to go through."""

import gc
from pathlib import Path

import pytest

from clipper.settings.application import Selection
from selection_desk import Desk, run

QUERIES = 200


@pytest.mark.parametrize("policy", ["single", "exp3", "ensemble"])
def test_remembered_queries_and_cached_outputs_are_not_the_collectors(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(policy))

        async def ask(first: int) -> int:
            for number in range(first, first + QUERIES):
                await desk.answer(application, number.to_bytes(8, "little"))
            gc.collect()
            return len(gc.get_objects())

        before = await ask(0)
        grown = await ask(QUERIES) - before
        assert len(desk.surroundings.joins) == 2 * QUERIES
        assert desk.predictor.cache.statistics().entries >= 2 * QUERIES
        assert grown < QUERIES / 10

    run(tmp_path, {"a": b"1", "b": b"1"}, scenario, cache=True)
