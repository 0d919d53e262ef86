"""Asks with kserve's client for two records, a tensor for each field, as a line of JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str) -> None:
    columns = {
        "age": ("FP64", np.array([[31.0], [4.5]])),
        "colour": ("BYTES", np.array([["red"], ["green"]], dtype=np.object_)),
        "visits": ("INT64", np.array([2, 1])),
    }
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    found = {}
    for name, binary in (("binary", True), ("json", False)):
        tensors = []
        for field, (datatype, values) in columns.items():
            tensors.append(InferInput(field, list(values.shape), datatype))
            tensors[-1].set_data_from_numpy(values, binary_data=binary)
        answer = await client.infer(url, InferRequest("people", tensors), model_name="people")
        found[name] = [json.loads(each) for each in answer.outputs[0].as_numpy().flatten()]
    print(json.dumps(found))


asyncio.run(main(f"http://{sys.argv[1]}"))
