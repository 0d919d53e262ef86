"""The findings of kserve's client of gRPC on a server at ``argv[1]``, as a line of JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import to_http_parameters


async def main(url: str) -> None:
    client = InferenceGRPCClient(url, retries=0)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("app"),
    }
    for name, binary in (("raw", True), ("typed", False)):
        tensor = InferInput("input", [2, 4], "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        answer = await client.infer(InferRequest("app", [tensor]))
        found[name] = answer.outputs[0].as_numpy().tolist()
    listed = InferInput("input", [2, 4], "FP32", data=rows.flatten().tolist())
    found["listed"] = (await client.infer(InferRequest("app", [listed]))).outputs[0].as_numpy().tolist()
    one = InferInput("input", [1, 4], "FP32", data=[1.0] * 4)
    found["parameters"] = to_http_parameters((await client.infer(InferRequest("app", [one]))).parameters)
    wrong = InferInput("input", [1, 5], "FP32", data=[1.0] * 5)
    try:
        await client.infer(InferRequest("app", [wrong]))
    except Exception as error:  # noqa: BLE001  whatever this client makes of it
        found["refused"] = str(error)
    print(json.dumps(found))


asyncio.run(main(sys.argv[1]))
