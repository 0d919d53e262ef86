"""The server that decoupling is measured beside: what comes while its model works is asked about in one call."""

import asyncio
import threading

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.in_process import InBatches, OneByOne
from tests.waiting import TIMEOUT_S, until_async


class Sums:
    """Waits in its first call until it is let go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()

    def predict(self, rows: NDArray[np.float64] | list[list[float]]) -> NDArray[np.float64]:
        self.batches.append(len(rows))
        assert self.go.wait(TIMEOUT_S)
        return np.sum(rows, axis=1)


def test_what_waits_for_the_model_is_one_batch() -> None:
    async def ask() -> list[int]:
        asker = InBatches(model)
        first = asyncio.create_task(asker.ask([1.0, 2.0]))
        await until_async(lambda: model.batches)
        others = [asyncio.create_task(asker.ask([float(number), 0.0])) for number in range(5)]
        await asyncio.sleep(0)
        model.go.set()
        return [await each for each in (first, *others)]

    model = Sums()
    assert asyncio.run(ask()) == [3, 0, 1, 2, 3, 4]
    assert model.batches == [1, 5]


def test_as_its_users_write_it_each_request_is_a_call() -> None:
    model = Sums()
    model.go.set()
    asker = OneByOne(model)
    assert [asyncio.run(asker.ask([value, 1.0])) for value in (1.0, 2.0)] == [2, 3]
    assert model.batches == [1, 1]
