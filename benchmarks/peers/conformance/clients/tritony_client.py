"""What tritony finds."""

import sys

import numpy as np
from showing import ECHOES, HOLES, ROWS, edges, outcome, shown, tell
from tritony import InferenceClient


def ask(model, url, protocol, rows):
    answer = InferenceClient.create_with(model, url, protocol=protocol)(rows)
    if isinstance(answer, dict):
        return "; ".join(f"{name} {shown(each)}" for name, each in sorted(answer.items()))
    if isinstance(answer, (list, tuple)):
        return "; ".join(shown(np.asarray(each)) for each in answer)
    return shown(np.asarray(answer))


def main(http, rpc):
    found = {}
    for protocol, url in (("http", http), ("grpc", rpc)):
        asked = {
            "rows": ("total", ROWS),
            "a row": ("total", ROWS[:1]),
            "the input by its name": ("total", {"input": ROWS}),
            "two outputs": ("classes", ROWS),
            "two inputs": ("pair", {"x": ROWS[:, :2], "times": ROWS[:, 3:]}),
            "NaN and infinity": ("holes", HOLES),
            **{f"a row of {name}": (f"echo_{name}", edges(name)) for name in ECHOES},
        }
        found |= {
            f"{name}, {'gRPC' if protocol == 'grpc' else 'HTTP'}": outcome(lambda: ask(model, url, protocol, rows))
            for name, (model, rows) in asked.items()
        }
    tell(found)


main(*sys.argv[1:3])
