"""What PyTriton's clients find: sync, with asyncio, with futures; and that a model without parts is refused as one."""

import asyncio
import sys

import numpy as np
from pytriton.client import (
    AsyncioDecoupledModelClient,
    AsyncioModelClient,
    DecoupledModelClient,
    FuturesModelClient,
    ModelClient,
)
from showing import ECHOES, HOLES, ROWS, edges, outcome, shown, tell


def text_of(outputs):
    return "; ".join(f"{name} {shown(array)}" for name, array in sorted(outputs.items()))


async def with_asyncio(url):
    async with AsyncioModelClient(url, "total") as client:
        sample = await client.infer_sample(ROWS[0])
        batches = await asyncio.gather(*(client.infer_batch(ROWS) for _ in range(20)))
    alike = {text_of(each) for each in batches}
    return f"{text_of(sample)}; 20 batches {', '.join(alike)}"


async def decoupled_with_asyncio(url):
    async with AsyncioDecoupledModelClient(url, "total") as client:
        return "; ".join([text_of(part) async for part in client.infer_sample(ROWS[0])])


def with_futures(url):
    with FuturesModelClient(url, "total", max_workers=8) as client:
        waiting = [client.infer_sample(row) for row in ROWS]
        samples = [text_of(each.result()) for each in waiting]
        return f"{', '.join(samples)}; {text_of(client.infer_batch(ROWS).result())}"


def decoupled(url):
    with DecoupledModelClient(url, "total") as client:
        return text_of(next(iter(client.infer_sample(ROWS[0]))))


def main(http, rpc):
    found = {}
    for protocol, url in (("HTTP", f"http://{http}"), ("gRPC", f"grpc://{rpc}")):

        def sample(model, *inputs, **named):
            with ModelClient(url, model) as client:
                return text_of(client.infer_sample(*inputs, **named))

        def batch(model, *inputs, **named):
            with ModelClient(url, model) as client:
                return text_of(client.infer_batch(*inputs, **named))

        def unready(url=url):
            with ModelClient(url, "nobody", init_timeout_s=1.0) as client:
                return text_of(client.infer_sample(ROWS[0]))

        checks = {
            "infer_sample": lambda: sample("total", ROWS[0]),
            "infer_batch": lambda: batch("total", ROWS),
            "infer_sample by the input's name": lambda: sample("total", input=ROWS[0]),
            "two outputs": lambda: batch("classes", ROWS),
            "two inputs": lambda: batch("pair", x=ROWS[:, :2], times=ROWS[:, 3:]),
            "NaN and infinity": lambda: batch("holes", HOLES),
            "a text": lambda: sample("texts", np.array(["grün".encode()], dtype=object)),
            "ragged": lambda: sample("ragged", ROWS[0]),
            **{f"a row of {name}": lambda name=name: batch(f"echo_{name}", edges(name)) for name in ECHOES},
            "AsyncioModelClient": lambda: asyncio.run(with_asyncio(url)),
            "a batch of another dtype": lambda: batch("total", ROWS.astype(np.float64)),
            "a model that is not there": unready,
        }
        if protocol == "HTTP":
            checks["FuturesModelClient"] = lambda: with_futures(url)
        else:
            checks["DecoupledModelClient"] = lambda: decoupled(url)
            checks["AsyncioDecoupledModelClient"] = lambda: asyncio.run(decoupled_with_asyncio(url))
        found |= {f"{name}, {protocol}": outcome(check) for name, check in checks.items()}
    tell(found)


main(*sys.argv[1:3])
