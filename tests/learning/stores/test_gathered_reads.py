"""Reads of states that are gathered into steps."""

import asyncio
from collections.abc import Sequence

import pytest

from clipper.errors import StoreUnavailable
from clipper.learning.stores.gathered_reads import GatheredReads, Read, State
from tests.waiting import TIMEOUT_S


def test_a_step_that_fails_for_any_reason_ends_all_waits() -> None:
    async def read(states: Sequence[State]) -> list[Read]:
        raise ValueError("a blob of 7 bytes is no array")

    async def scenario() -> None:
        reads = GatheredReads(read)
        loads = [asyncio.ensure_future(reads.load("a", context)) for context in ("", "u", "v")]
        async with asyncio.timeout(TIMEOUT_S):
            for load in loads:
                with pytest.raises(StoreUnavailable, match="a blob of 7 bytes"):
                    await load
        await reads.close()

    asyncio.run(scenario())
