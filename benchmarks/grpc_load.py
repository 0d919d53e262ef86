"""``python -m benchmarks.grpc_load HOST:PORT CONNECTIONS SECONDS``: asks by gRPC, a call at a time on each connection.

Each asks for the sum of four numbers that nobody has asked for before. Prints how many were answered.
"""

import asyncio
import itertools
import struct
import sys
import time

import uvloop
from grpc import aio

from clipper.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.frontend.rpc.service import METHODS
from clipper.frontend.rpc.wire import encode

_TENSOR = {"name": "input", "datatype": "FP64", "shape": [1, 4]}
_ROW = struct.Struct("<4d")


async def main(address: str, connections: int, seconds: float) -> int:
    numbers = itertools.count()
    end_s = time.monotonic() + seconds
    # All but the row, with which the message ends.
    empty = {"model_name": "sum", "inputs": [_TENSOR], "raw_input_contents": [bytes(_ROW.size)]}
    head = encode(OPEN_INFERENCE.message("ModelInferRequest"), empty)[: -_ROW.size]

    async def ask() -> int:
        answered = 0
        async with aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = channel.unary_unary(METHODS["ModelInfer"].path)
            while time.monotonic() < end_s:
                await infer(head + _ROW.pack(next(numbers), 1.0, 2.0, time.time()))
                answered += 1
        return answered

    return sum(await asyncio.gather(*(ask() for _ in range(connections))))


if __name__ == "__main__":
    print(uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
