"""Queries leave nothing behind that the garbage collector would have to go through."""

import gc
import sys
from itertools import count, islice, pairwise
from pathlib import Path
from statistics import median

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.settings.application import Selection
from clipper.settings.server import MAX_CONTEXTS
from clipper.worker.selection import contexts as contexts_module
from clipper.worker.selection.synchronizer import Synchronizer
from tests.event_loops import turn_over
from tests.selection_desk import ROW, SLO_S, Desk, learn, on_input, on_query, run

QUERIES = 200
CONTEXTS = ("ada", "bob", "eve")
# Contexts that are kept, and come in a round: so few that all bounds are reached in the first rounds.
KEPT, ROUNDS, WARM_UP_ROUNDS = 50, 12, 4


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("policy", ["exp3", "ensemble"])
def test_blocks_in_use_do_not_grow_with_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    """Once contexts, queries and outputs are as many as are kept, each new one leaves nothing behind."""
    monkeypatch.setattr(contexts_module, "MAX_CONTEXTS", KEPT)

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(policy))
        surroundings, numbers = desk.surroundings, count()
        surroundings.joins.max_queries = QUERIES
        following = Synchronizer(desk.store, surroundings.committer, lambda: [application], MAX_CONTEXTS)

        async def ask_round() -> int:
            asked = []
            for number in islice(numbers, QUERIES):
                row = number.to_bytes(8, "little") * 1024
                asked.append(desk.ask(application, row, None if number % (QUERIES // KEPT) else f"user-{number}")[1])
            await desk.serve_until(lambda: all(query.done for query in asked))
            told = [learn(application, on_query(query.id, b"1")) for query in asked if query.context]
            await desk.serve_until(lambda: all(each.done() for each in told))
            for rows in desk.models.asked.values():
                rows.clear()
            await following.follow()
            desk.loop.advance(SLO_S)  # a query is kept until its deadline
            await turn_over()
            gc.collect()
            return sys.getallocatedblocks()

        blocks = [await ask_round() for _ in range(ROUNDS)]
        assert len(surroundings.joins) == QUERIES and desk.predictor.cache.statistics().evictions > QUERIES
        assert len(application.contexts) == KEPT
        # The median: single rounds also fill or empty a memo, or enlarge a table.
        grown = median(later - earlier for earlier, later in pairwise(blocks[WARM_UP_ROUNDS - 1 :]))
        assert grown < QUERIES / 2, blocks

    run(tmp_path, {"a": b"1", "b": b"1"}, scenario, cache=True)
