"""Requests to stop a server, and when it drains."""

import asyncio

import pytest

from clipper.supervisor.stop_requests import StopRequests

# Longer than a test may take: it passes only if something ends it.
FOR_EVER_S = 1e6


@pytest.mark.parametrize(
    ("delay_s", "before", "then", "announced"),
    [
        (0.0, 1, 0, 0),
        (0.0, 0, 1, 0),
        (0.01, 0, 1, 1),
        (FOR_EVER_S, 0, 2, 1),
        (FOR_EVER_S, 1, 1, 1),
        # Asked twice before it could wait, as during a start that takes long.
        (FOR_EVER_S, 2, 0, 0),
    ],
)
def test_the_first_begins_the_delay_and_the_second_ends_it(
    delay_s: float, before: int, then: int, announced: int
) -> None:
    async def test() -> list[bool]:
        told: list[bool] = []
        requests = StopRequests(delay_s)
        assert not requests.is_requested
        for _ in range(before):
            requests.request()
        waiting = asyncio.ensure_future(requests.wait(lambda: told.append(requests.is_requested)))
        for _ in range(then):
            for _ in range(3):  # until it waits for what comes next
                await asyncio.sleep(0)
            assert not waiting.done()
            requests.request()
        await waiting
        return told

    assert asyncio.run(test()) == [True] * announced
