"""Ray Serve: pipelines of deployments, each of which batches; a response is handed on before it is there."""

import os
import threading

import fast_json
import model
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

# Replicas get no other variables.
KEPT = ("MAX_BATCH", "WAIT_MS", "TASK", "PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {"enable_access_log": False}
MAX_BATCH, WAIT_S = int(os.environ["MAX_BATCH"]), float(os.environ["WAIT_MS"]) / 1000


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.3})
class Step:
    def __init__(self, function):
        self.function = getattr(model, function)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows):
        return self.function(rows).tolist()

    async def __call__(self, row):
        return await self.predict(row)


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.3})
class Rank:
    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)
    async def predict(self, left, right):
        return model.ranked(left, right).tolist()

    async def __call__(self, left, right):
        return await self.predict(left, right)


class Ingress:
    def __init__(self, *steps):
        self.steps = steps

    async def __call__(self, request: Request):
        row = fast_json.row(await request.body())
        return JSONResponse({"label": await self.asked(row)})


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.3})
class Chain(Ingress):
    def asked(self, row):
        first, second, third = self.steps
        return third.remote(second.remote(first.remote(row)))


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.3})
class Fanout(Ingress):
    def asked(self, row):
        left, right, rank = self.steps
        return rank.remote(left.remote(row), right.remote(row))


def step(function):
    return Step.options(name=function).bind(function)


if __name__ == "__main__":
    variables = {name: os.environ[name] for name in KEPT if name in os.environ}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])}, logging_config=QUIET)
    if os.environ["TASK"] == "chain":
        application = Chain.bind(step("doubled"), step("raised"), step("total"))
    else:
        application = Fanout.bind(step("doubled"), step("raised"), Rank.bind())
    serve.run(application, route_prefix="/predict", logging_config=QUIET)
    threading.Event().wait()
