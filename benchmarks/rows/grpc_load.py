"""``python -m benchmarks.rows.grpc_load HOST:PORT CONNECTIONS SECONDS [MODEL WIDTH]``: asks by gRPC.

Each connection has one call at a time, which asks ``MODEL`` (``sum``) for a row of ``WIDTH`` (4) float64 that nobody
has asked for before. Prints how many were answered, other than by Clipper's default.
"""

import asyncio
import itertools
import struct
import sys
import time

import uvloop
from grpc import aio

from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import encode

_INFER = "/inference.GRPCInferenceService/ModelInfer"
# The parameter of an answer that is the application's default, in protobuf.
_DEFAULT = b"\x07default\x12\x02\x08\x01"
_FIRST = struct.Struct("<2d")


async def main(address: str, connections: int, seconds: float, model: str = "sum", width: int = 4) -> int:
    numbers = itertools.count()
    end_s = time.monotonic() + seconds
    rest = struct.pack(f"<{width - 2}d", *(1 + number / width for number in range(width - 2)))
    # All but the row, with which the message ends.
    tensor = {"name": "input", "datatype": "FP64", "shape": [1, width]}
    empty = {"model_name": model, "inputs": [tensor], "raw_input_contents": [bytes(8 * width)]}
    head = encode(OPEN_INFERENCE.message("ModelInferRequest"), empty)[: -8 * width]

    async def ask() -> int:
        answered = 0
        async with aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = channel.unary_unary(_INFER)
            while time.monotonic() < end_s:
                answered += _DEFAULT not in await infer(head + _FIRST.pack(next(numbers), time.time()) + rest)
        return answered

    return sum(await asyncio.gather(*(ask() for _ in range(connections))))


if __name__ == "__main__":
    address, connections, seconds, *what = sys.argv[1:]
    model, width = what or ("sum", "4")
    print(uvloop.run(main(address, int(connections), float(seconds), model, int(width))))
