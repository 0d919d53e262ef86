"""The findings of tritonclient.http.aio on a server at ``argv[1]``, as a line of JSON."""

import asyncio
import json
import sys

import numpy as np
import tritonclient.http.aio as http
from tritonclient.utils import InferenceServerException


async def main(url: str) -> None:
    async with http.InferenceServerClient(url) as client:
        rows = np.arange(32, dtype=np.float32).reshape(8, 4)
        tensor = http.InferInput("input", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        answers = await asyncio.gather(*(client.infer("app", [tensor]) for _ in range(20)))
        try:
            await client.infer("nobody", [tensor])
        except InferenceServerException as error:
            unknown = [error.status(), error.message()]
        found = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready("app"),
            "model": await client.get_model_metadata("app"),
            "batches": [answer.as_numpy("output").tolist() for answer in answers],
            "unknown": unknown,
        }
    print(json.dumps(found))


asyncio.run(main(sys.argv[1]))
