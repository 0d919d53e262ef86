"""Loads models as a container does, as many as it is asked for, so that a framework is imported once for many tests.

A line of JSON in, one out; see ``framework_desk.py``. It runs in the framework's environment, which has no pytest.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from clipper.errors import ClipperError
from clipper.model.frameworks.table import column_of
from clipper.model.model import LoadedModel
from clipper.model.runtime.loading import ModelSource, load
from clipper.model.runtime.outputs import encode_outputs, learn_type
from clipper.values.records import RecordType

Message = dict[str, Any]


def main() -> None:
    # Libraries print what they like; answers go where standard output was.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    models: list[LoadedModel] = []
    for line in sys.stdin:
        try:
            answer = answered(json.loads(line), models)
        except ClipperError as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def answered(asked: Message, models: list[LoadedModel]) -> Message:
    if "inputs" in asked:
        return predicted(asked, models[asked["model"]])
    source = ModelSource(Path(asked.pop("artifact")), **asked)
    model = load(source)
    models.append(model)
    return {
        "model": len(models) - 1,
        "input_type": str(model.input_type),
        "max_batch": model.max_batch,
        "runtime": model.runtime,
        "device": model.device,
        "output_type": None if model.output_type is None else str(model.output_type),
    }


def predicted(asked: Message, model: LoadedModel) -> Message:
    inputs, rows = asked["inputs"], len(asked["inputs"])
    if isinstance(model.input_type, RecordType):
        fields = model.input_type.fields
        inputs = {field.name: column_of(field, [row.get(field.name) for row in inputs]) for field in fields}
    elif isinstance(inputs, str):
        # As they come off the wire: in the type that the model takes.
        inputs = np.load(inputs).astype(model.input_type.dtype.label)
        rows = len(inputs)
    encoded = encode_outputs(model.predict_batch(inputs), rows)
    outputs = [json.loads(row) for row in encoded.lines().split(b"\n")]
    return {"outputs": outputs, "failures": dict(encoded.failures), "shown": str(learn_type(encoded))}


if __name__ == "__main__":
    main()
