"""``python -m benchmarks.paper.in_process MODEL PORT [batching]``: a model behind FastAPI, in the server's own process.

As its user would write it: a request is checked, the model asked about it, and its label answered. With ``batching``
requests that come while the model works are asked together when it is done; and any number of such processes may
share the port. With PORT 0 there is no server: it asks the model about batches, in a loop, for ``LOOP_S``, and prints
how many rows a second that is.
"""

import asyncio
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import joblib
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from threadpoolctl import threadpool_limits

from benchmarks.paper.data import PIXELS

LOOP_S = 3.0
# As many as the connections that the servers are asked on, at most.
LOOP_ROWS = 32
MAX_BATCH = 1024


class Query(BaseModel):
    input: list[float]


class Asker(Protocol):
    async def ask(self, row: list[float]) -> int:
        """The label of a row."""


class OneByOne:
    """Calls the model for each request, on the loop."""

    def __init__(self, model: Any) -> None:
        self._model = model

    async def ask(self, row: list[float]) -> int:
        return int(self._model.predict([row])[0])


class InBatches:
    """Calls the model on a thread, for all that came while it was busy."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[list[float], asyncio.Future[int]]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, row: list[float]) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            labels = await loop.run_in_executor(self._thread, self._labels, [row for row, _ in batch])
            for (_, answer), label in zip(batch, labels):
                if not answer.done():
                    answer.set_result(label)
        self._working = None

    def _labels(self, rows: list[list[float]]) -> list[int]:
        labels: list[int] = self._model.predict(np.array(rows)).tolist()
        return labels


def create_app(asker: Asker) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(query: Query) -> dict[str, int]:
        return {"output": await asker.ask(query.input)}

    return app


def rows_per_s(model: Any) -> float:
    rows = np.random.default_rng(0).integers(0, 256, (LOOP_ROWS, PIXELS)).astype(np.float64)
    began_s = time.perf_counter()
    batches = 0
    while time.perf_counter() < began_s + LOOP_S:
        model.predict(rows)
        batches += 1
    return batches * LOOP_ROWS / (time.perf_counter() - began_s)


def serve(app: FastAPI, port: int) -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    # As many as a container has.
    threadpool_limits(1)
    loaded, port = joblib.load(sys.argv[1]), int(sys.argv[2])
    if port:
        serve(create_app(InBatches(loaded) if "batching" in sys.argv[3:] else OneByOne(loaded)), port)
    else:
        print(rows_per_s(loaded))
