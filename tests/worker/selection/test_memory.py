"""What queries leave behind: nothing that the garbage collector would have to go through."""

import gc
from pathlib import Path

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.settings.application import Selection
from tests.selection_desk import ROW, Desk, on_input, run

QUERIES = 200
CONTEXTS = ("ada", "bob", "eve")


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


def test_states_share_the_keys_of_their_numbers(tmp_path: Path) -> None:
    """The compiled form made each key anew: 80 of them for a piece of feedback, and the collector looked at each."""

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        await desk.answer(application)
        for context in CONTEXTS:
            await desk.observe(application, on_input(ROW, b"1", context))
        found = [application.contexts.totals(context) for context in CONTEXTS]
        numbers = [totals.numbers for totals in found if totals is not None]
        assert len(numbers) == len(CONTEXTS)
        assert len({id(key) for each in numbers for key in each}) == len({key for each in numbers for key in each})

        store = await desk.store.load_many("app-id", CONTEXTS)
        ledgers = [Ledger(None, each) for each in store if isinstance(each, dict)]
        texts = [text for ledger in ledgers for text in ledger.sums()]
        assert len({id(text) for text in texts}) == len(set(texts))

    run(tmp_path, {"a": b"1", "b": b"2"}, scenario, cache=True)
