"""The findings of tritony on a server, by gRPC at ``argv[1]`` or, with ``argv[2]``, by HTTP, as a line of JSON."""

import json
import sys

import numpy as np
from tritony import InferenceClient


def main(url: str, protocol: str = "grpc") -> None:
    client = InferenceClient.create_with("app", url, protocol=protocol)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    print(json.dumps({"sums": client(rows).tolist(), "named": client({"input": rows}).tolist()}))


main(*sys.argv[1:])
