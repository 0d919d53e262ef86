"""Ray Serve: a proxy, and replicas that batch."""

import os
import threading

import fast_json
import model
import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Replicas get no other variables.
KEPT = ("READS", "MAX_BATCH", "WAIT_MS", "TASK", "MODEL", "SCRATCH", "PYTHONPATH", *THREADS)


@serve.deployment(
    num_replicas=int(os.environ["WORKERS"]), max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.5}
)
class Predictor:
    def __init__(self):
        self.model = model.load()

    @serve.batch(max_batch_size=int(os.environ["MAX_BATCH"]), batch_wait_timeout_s=float(os.environ["WAIT_MS"]) / 1000)
    async def labels(self, rows):
        return self.model.predict(np.array(rows)).tolist()

    async def __call__(self, request: Request):
        simd = os.environ["READS"] == "simd"
        row = fast_json.row(await request.body()) if simd else (await request.json())["input"]
        # A dict would be answered in chunks, which the open load does not read.
        return JSONResponse({"label": await self.labels(row)})


if __name__ == "__main__":
    variables = {name: os.environ[name] for name in KEPT if name in os.environ}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    quiet = {"enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])}, logging_config=quiet)
    serve.run(Predictor.bind(), route_prefix="/predict", logging_config=quiet)
    threading.Event().wait()
