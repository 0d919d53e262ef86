"""BentoML with its adaptive batching; access log and metrics are off.

``WAIT_MS`` is ``max_latency_ms``: requests that would take longer are refused. It is no wait.
"""

import os

import bentoml
import model
import numpy as np

if model.IS_TABLE:
    import table_model

Row = dict[str, float | str | None] if model.IS_TABLE else list[float]


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Service:
    def __init__(self):
        self.model = model.load()

    @bentoml.api(
        batchable=True,
        max_batch_size=int(os.environ["MAX_BATCH"]),
        max_latency_ms=int(os.environ["WAIT_MS"]),
        route="/predict",
    )
    def predict(self, rows: list[Row]) -> list[float]:
        return self.model.predict(table_model.frame(rows) if model.IS_TABLE else np.array(rows)).tolist()
