"""Ray Serve on a cluster that runs: ``serve_waiting.py ADDRESS PORT FOLDER MAX_BATCH``.

It serves the model ``waiting`` of the folder with Clipper's path and answers. Each line of its input says how many
replicas it shall have; once all of them run it writes the seconds that this took. Serve ends with the input.
"""

import asyncio
import json
import os
import sys
import time

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

ADDRESS, PORT, FOLDER, MAX_BATCH = sys.argv[1:]
sys.path.insert(0, FOLDER)
import waiting  # noqa: E402  # of that folder

BATCH_S, ROW_S = waiting.BATCH_S, waiting.ROW_S
# Far longer than eight replicas take on a quiet machine.
READY_WITHIN_S = 120.0
# How often Serve is asked whether its replicas run.
LOOK_EVERY_S = 0.05
QUIET = {"enable_access_log": False, "log_level": "ERROR"}


# More than its clients have under way, so that none waits in the proxy.
@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1}, logging_config=QUIET)
class Waiting:
    # A batch that is not full waits no longer than the model takes for a row.
    @serve.batch(max_batch_size=int(MAX_BATCH), batch_wait_timeout_s=ROW_S)
    async def sums(self, rows):
        # Serve's own loop goes on meanwhile, and the next batch waits for this one.
        await asyncio.sleep(BATCH_S + ROW_S * len(rows))
        return np.array(rows, dtype=float).sum(1).tolist()

    async def __call__(self, request: Request):
        row = (await request.json())["input"]
        return JSONResponse({"output": await self.sums(row), "default": False})


def scale(replicas):
    began_s = time.perf_counter()
    serve.run(Waiting.options(num_replicas=replicas).bind(), route_prefix="/waiting/predict", logging_config=QUIET)
    while time.perf_counter() < began_s + READY_WITHIN_S:
        (deployment,) = serve.status().applications["default"].deployments.values()
        if deployment.replica_states == {"RUNNING": replicas}:
            return time.perf_counter() - began_s
        time.sleep(LOOK_EVERY_S)
    raise TimeoutError(f"Serve has not {replicas} replicas: {deployment}")


def main():
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints
    ray.init(ADDRESS, log_to_driver=False, logging_level="WARNING")
    # One proxy, as Clipper has one query worker.
    serve.start("HeadOnly", http_options={"host": "127.0.0.1", "port": int(PORT)}, logging_config=QUIET)
    for line in sys.stdin:
        answers.write(json.dumps(scale(int(line))).encode() + b"\n")
        answers.flush()
    serve.shutdown()


if __name__ == "__main__":
    main()
