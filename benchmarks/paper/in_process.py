"""``python -m benchmarks.paper.in_process MODEL PORT``: a model behind FastAPI, called in the server's own process.

As its user would write it: a request is checked, the model asked about it, and its label answered. With PORT 0 there is
no server: it asks the model about batches, in a loop, for ``LOOP_S``, and prints how many rows a second that is.
"""

import sys
import time
from typing import Any

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


class Query(BaseModel):
    input: list[float]


def create_app(model: Any) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(query: Query) -> dict[str, int]:
        return {"output": int(model.predict([query.input])[0])}

    return app


def rows_per_s(model: Any) -> float:
    rows = np.random.default_rng(0).integers(0, 256, (LOOP_ROWS, PIXELS)).astype(np.float64)
    began_s = time.perf_counter()
    batches = 0
    while time.perf_counter() < began_s + LOOP_S:
        model.predict(rows)
        batches += 1
    return batches * LOOP_ROWS / (time.perf_counter() - began_s)


if __name__ == "__main__":
    # As many as a container has.
    threadpool_limits(1)
    loaded, port = joblib.load(sys.argv[1]), int(sys.argv[2])
    if port:
        uvicorn.run(create_app(loaded), host="127.0.0.1", port=port, log_level="warning", access_log=False)
    else:
        print(rows_per_s(loaded))
