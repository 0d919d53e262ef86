"""PyTriton: models that batch, and one that asks the others through Triton."""

import os

import model
import numpy as np
from pytriton.client import FuturesModelClient
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

WIDTH = 4
PORT, MAX_BATCH = os.environ["PORT"], int(os.environ["MAX_BATCH"])
ROW = Tensor(name="input", dtype=np.float64, shape=(WIDTH,))
SIDES = [Tensor(name=side, dtype=np.float64, shape=(WIDTH,)) for side in ("left", "right")]
VECTOR, LABEL = (Tensor(name="label", dtype=np.float64, shape=shape) for shape in ((WIDTH,), (1,)))


def of_rows(function):
    @batch
    def infer(input):  # noqa: A002  # it is called by the tensor's name
        return {"label": function(input).reshape(len(input), -1)}

    return infer


@batch
def ranked(left, right):
    return {"label": model.ranked(left, right).reshape(-1, 1)}


def pipeline():
    """The function that asks the other models; each of their clients has a thread."""
    names = ("first", "second", "third") if os.environ["TASK"] == "chain" else ("left", "right", "rank")
    one, two, three = (FuturesModelClient(f"http://127.0.0.1:{PORT}", name) for name in names)

    @batch
    def chain(input):  # noqa: A002
        rows = one.infer_batch(input=input).result()["label"]
        rows = two.infer_batch(input=rows).result()["label"]
        return three.infer_batch(input=rows).result()

    @batch
    def fanout(input):  # noqa: A002
        sides = one.infer_batch(input=input), two.infer_batch(input=input)
        left, right = (side.result()["label"] for side in sides)
        return three.infer_batch(left=left, right=right).result()

    return chain if os.environ["TASK"] == "chain" else fanout


if __name__ == "__main__":
    settings = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(PORT),
        allow_grpc=False,
        allow_metrics=False,
        http_thread_count=int(os.environ["THREADS"]),
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(os.environ["WAIT_MS"]) * 1000)
    config = ModelConfig(batching=True, max_batch_size=MAX_BATCH, batcher=batcher)
    with Triton(config=settings) as triton:
        if os.environ["TASK"] == "chain":
            triton.bind("first", of_rows(model.doubled), [ROW], [VECTOR], config=config)
            triton.bind("second", of_rows(model.raised), [ROW], [VECTOR], config=config)
            triton.bind("third", of_rows(model.total), [ROW], [LABEL], config=config)
        else:
            triton.bind("left", of_rows(model.doubled), [ROW], [VECTOR], config=config)
            triton.bind("right", of_rows(model.raised), [ROW], [VECTOR], config=config)
            triton.bind("rank", ranked, SIDES, [LABEL], config=config)
        triton.bind("m", pipeline(), [ROW], [LABEL], config=config)
        triton.serve()
