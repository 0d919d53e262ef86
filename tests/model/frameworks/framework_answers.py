"""Run in a framework's environment: asks Clipper's runtime all cases of a folder, and writes its answers as JSON.

A case has the fields of ``ModelSource``, and ``inputs``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed
from clipper.model.model import LoadedModel
from clipper.model.protocol.columns import decode_predict_columns, encode_predict_columns
from clipper.model.protocol.frames import Splitter
from clipper.model.runtime.evaluate import evaluate
from clipper.model.runtime.inputs import input_reader
from clipper.model.runtime.loading import ModelSource, load
from clipper.model.runtime.outputs import learn_type
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import Field, RecordType

FIELDS = ("loader", "target", "data", "input_type", "framework", "output", "sample_type")


def inputs_of(model: LoadedModel, values: list[Any]) -> Any:
    if isinstance(model.input_type, RecordType):
        return columns_of(model.input_type, values)
    if not model.input_type.dtype.is_numeric:
        return values
    arrays = [np.array(value, model.input_type.dtype.label) for value in values]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays


def columns_of(record: RecordType, objects: list[dict[str, Any]]) -> Any:
    """Columns as they come off the wire."""
    rows = RecordRows(record)
    columns = rows.columns([rows.row([packed(field, row) for field in record.fields]) for row in objects])
    ((_, _, body),) = Splitter().feed(b"".join(encode_predict_columns(1, columns)))
    return input_reader(record)(decode_predict_columns(body))


def packed(field: Field, row: dict[str, Any]) -> Any:
    """A value as a row has it."""
    value = row.get(field.name)
    if value is None and field.default is not None:
        value = json.loads(field.default)
    if value is None or isinstance(value, str):
        return value if value is None else value.encode()
    array = np.array(value, field.type.dtype.label)
    if not field.type.shape:
        return array.item()
    dimensions = array.shape[: field.type.leading_dimensions]
    return np.array(dimensions, "<u4").tobytes() + array.tobytes()


def answer(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    given = {"loader": "file", **{name: case[name] for name in FIELDS if name in case}}
    try:
        model = load(ModelSource(folder, **given))
    except ContainerFailed as error:
        return {"refusal": str(error)}
    outputs, failures, shown = [], [], []
    # As many at once as it takes.
    step = model.max_batch or len(case["inputs"])
    for start in range(0, len(case["inputs"]), step):
        rows = case["inputs"][start : start + step]
        # However long that takes, an input that fails is told from the others.
        encoded = evaluate(model.predict_batch, lambda rows=rows: inputs_of(model, rows), lambda: 0.0)
        outputs += [json.loads(line) if line else None for line in encoded.lines().split(b"\n")]
        failures += encoded.failures.values()
        if not encoded.failures:
            shown.append(str(learn_type(encoded)))
    told = {"takes": str(model.input_type), "runtime": model.runtime, "max_batch": model.max_batch}
    gives = None if model.output_type is None else str(model.output_type)
    return {**told, "outputs": outputs, "failures": failures, "gives": gives, "shown": shown}


def main() -> None:
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    print(json.dumps({name: answer(folder, case) for name, case in cases.items()}))


if __name__ == "__main__":
    main()
