"""What KServe's clients find, REST and gRPC."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from showing import ECHOES, HOLES, ROWS, edges, shown, tell

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
}


async def outcome(asking):
    try:
        return await asking
    except Exception as error:  # noqa: BLE001  whatever this client makes of it
        return f"raises {type(error).__name__}"


def request_of(model, arrays, binary):
    inputs = []
    for name, array in arrays.items():
        inputs.append(InferInput(name, list(array.shape), DATATYPES[array.dtype.name]))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model, inputs)


async def main(http, rpc):
    found = {}
    url = f"http://{http}"
    rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    grpc = InferenceGRPCClient(rpc, retries=0)

    async def by_rest(model, binary, **arrays):
        answer = await rest.infer(url, request_of(model, arrays, binary), model_name=model)
        return "; ".join(f"{each.name} {shown(each.as_numpy())}" for each in answer.outputs)

    async def by_grpc(model, binary, **arrays):
        answer = await grpc.infer(request_of(model, arrays, binary))
        return "; ".join(f"{each.name} {shown(each.as_numpy())}" for each in answer.outputs)

    async def ready(of, *where):
        live = [await of.is_server_live(*where), await of.is_server_ready(*where)]
        return str([*live, await of.is_model_ready(*where, "total")])

    text = np.array([["grün".encode()], [b"x" * 300]], dtype=object)
    checks = {
        "total": ("total", {"input": ROWS}),
        "two outputs": ("classes", {"input": ROWS}),
        "two inputs": ("pair", {"x": ROWS[:, :2], "times": ROWS[:, 3:]}),
        "NaN and infinity": ("holes", {"input": HOLES}),
        "texts": ("texts", {"input": text}),
        "ragged rows": ("ragged", {"input": ROWS}),
        **{f"a row of {name}": (f"echo_{name}", {"input": edges(name)}) for name in ECHOES},
        "a model that is not there": ("nobody", {"input": ROWS}),
        "a wrong shape": ("total", {"input": ROWS[:, :3]}),
    }
    found["ready, REST"] = await outcome(ready(rest, url))
    found["ready, gRPC"] = await outcome(ready(grpc))
    for way, binary, ask in (
        ("REST in bytes", True, by_rest),
        ("REST in JSON", False, by_rest),
        ("gRPC, raw", True, by_grpc),
        ("gRPC, typed", False, by_grpc),
    ):
        for name, (model, arrays) in checks.items():
            found[f"{name}, {way}"] = await outcome(ask(model, binary, **arrays))
    await rest.close()
    await grpc.close()
    tell(found)


asyncio.run(main(*sys.argv[1:3]))
