"""Calls one model in a loop, in the model's own environment: ``in_process.py SOURCE INPUTS``.

``SOURCE`` is a ``ModelSource`` as JSON, ``INPUTS`` a file of numpy's. A line ``ROWS SECONDS`` asks for so many rows a
call and so long a loop; the answer is a line with the rows a second.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from clipper.model.runtime.loading import ModelSource, load
from clipper.values.types import InputType


def main() -> None:
    given = json.loads(sys.argv[1])
    model = load(ModelSource(Path(given.pop("artifact")), **given))
    assert isinstance(model.input_type, InputType), "it takes arrays"
    inputs = np.load(sys.argv[2]).astype(model.input_type.dtype.label)
    for line in sys.stdin:
        rows, seconds = line.split()
        batch = np.resize(inputs, (int(rows), *inputs.shape[1:]))
        model.predict_batch(batch.copy())
        calls, started_s = 0, time.perf_counter()
        while (took_s := time.perf_counter() - started_s) < float(seconds):
            model.predict_batch(batch)
            calls += 1
        print(calls * len(batch) / took_s, flush=True)


if __name__ == "__main__":
    main()
