"""PyTriton: the Triton binary answers HTTP, and calls back into this process."""

import json
import os
from pathlib import Path

import model
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

predictor = model.load()
width = len(json.loads(Path(os.environ["ROWS"]).read_text())[os.environ["TASK"]]["rows"][0])


@batch
def infer(input):  # noqa: A002  # it is called by the tensor's name
    return {"label": predictor.predict(input).astype(np.float64).reshape(-1, 1)}


if __name__ == "__main__":
    settings = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PORT"]),
        allow_grpc="GRPC" in os.environ,
        grpc_address="127.0.0.1",
        grpc_port=int(os.environ["SECOND_PORT"]),
        allow_metrics=False,
        http_thread_count=int(os.environ["THREADS"]),
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(os.environ["WAIT_MS"]) * 1000)
    with Triton(config=settings) as triton:
        triton.bind(
            model_name="m",
            infer_func=infer,
            inputs=[Tensor(name="input", dtype=np.float64, shape=(width,))],
            outputs=[Tensor(name="label", dtype=np.float64, shape=(1,))],
            config=ModelConfig(batching=True, max_batch_size=int(os.environ["MAX_BATCH"]), batcher=batcher),
        )
        triton.serve()
