"""BentoML: pipelines of services, each of which batches in a process of its own."""

import asyncio
import os

import bentoml
import model

Row = list[float]
QUIET = {"traffic": {"timeout": 30}, "logging": {"access": {"enabled": False}}, "metrics": {"enabled": False}}
BATCHED = {
    "batchable": True,
    "max_batch_size": int(os.environ["MAX_BATCH"]),
    "max_latency_ms": int(os.environ["WAIT_MS"]),
}


@bentoml.service(**QUIET)
class Doubled:
    @bentoml.api(**BATCHED)
    def predict(self, rows: list[Row]) -> list[Row]:
        return model.doubled(rows).tolist()


@bentoml.service(**QUIET)
class Raised:
    @bentoml.api(**BATCHED)
    def predict(self, rows: list[Row]) -> list[Row]:
        return model.raised(rows).tolist()


@bentoml.service(**QUIET)
class Total:
    @bentoml.api(**BATCHED)
    def predict(self, rows: list[Row]) -> list[float]:
        return model.total(rows).tolist()


@bentoml.service(**QUIET)
class Ranked:
    @bentoml.api(**BATCHED)
    def predict(self, rows: list[list[Row]]) -> list[float]:
        return model.ranked([left for left, _ in rows], [right for _, right in rows]).tolist()


@bentoml.service(**QUIET)
class Chain:
    first = bentoml.depends(Doubled)
    second = bentoml.depends(Raised)
    third = bentoml.depends(Total)

    @bentoml.api(route="/predict")
    async def predict(self, rows: list[Row]) -> list[float]:
        rows = await self.first.to_async.predict(rows)
        rows = await self.second.to_async.predict(rows)
        return await self.third.to_async.predict(rows)


@bentoml.service(**QUIET)
class Fanout:
    left = bentoml.depends(Doubled)
    right = bentoml.depends(Raised)
    rank = bentoml.depends(Ranked)

    @bentoml.api(route="/predict")
    async def predict(self, rows: list[Row]) -> list[float]:
        sides = await asyncio.gather(self.left.to_async.predict(rows), self.right.to_async.predict(rows))
        return await self.rank.to_async.predict([list(pair) for pair in zip(*sides)])


Service = {"chain": Chain, "fanout": Fanout}[os.environ["TASK"]]
