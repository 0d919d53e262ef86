"""The findings of kserve's client of REST on a server at ``argv[1]``, as a line of JSON."""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(rows: Any, *, binary: bool) -> InferRequest:
    tensor = InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model_name="app", infer_inputs=[tensor])


async def main(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "app"),
    }
    for name, binary in (("binary", True), ("json", False)):
        answer = await client.infer(url, request(rows, binary=binary), model_name="app")
        found[name] = answer.outputs[0].as_numpy().tolist()
    listed = InferInput("input", [2, 4], "FP32", data=rows.flatten().tolist())
    answer = await client.infer(url, InferRequest(model_name="app", infer_inputs=[listed]), model_name="app")
    found["listed"] = answer.outputs[0].as_numpy().tolist()
    try:
        await client.infer(url, request(np.ones((1, 5), np.float32), binary=True), model_name="app")
    except Exception as error:  # noqa: BLE001  whatever this client makes of a 400
        found["refused"] = f"{error} {getattr(getattr(error, 'response', None), 'text', '')}"
    print(json.dumps(found))


asyncio.run(main(f"http://{sys.argv[1]}"))
