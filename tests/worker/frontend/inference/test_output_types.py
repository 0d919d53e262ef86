"""Whatever form outputs come in, and whatever else is in a batch, a declared type is kept in each protocol, and so is
each bit of the model's values."""

import base64
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipper.values.inputs.numbers import NUMPY
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import Output, make_array, make_record, with_nan_as_text
from clipper.values.outputs.record_columns import names_of
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.inference.answers import Answer, encode
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.requests import AnswerForm
from clipper.worker.frontend.rpc.answers import MessageCodec
from clipper.worker.frontend.rpc.contents import FIELD_OF
from tests.worker.frontend.rpc.rpc_messages import InferResponse
from tests.worker.frontend.steps import finish

DATATYPES = {
    DType.INT32: "INT32",
    DType.INT64: "INT64",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
    DType.UINT8: "UINT8",
    DType.BOOL: "BOOL",
    DType.STRING: "BYTES",
    DType.BYTES: "BYTES",
}
FLOATS = (DType.FLOAT32, DType.FLOAT64)
# Of one row and field: an array, a text or bytes.
Value = Any

types = st.builds(
    InputType, st.sampled_from(list(DType)), st.lists(st.sampled_from([None, 1, 2, 3]), max_size=3).map(tuple)
)
records = st.lists(types, min_size=1, max_size=3).map(
    lambda of_fields: RecordType(tuple(Field(f"field {place}", each) for place, each in enumerate(of_fields)))
)


@st.composite
def values(draw: st.DrawFn, of_type: InputType) -> Value:
    if of_type.dtype is DType.STRING:
        return draw(st.text(max_size=5))
    if of_type.dtype is DType.BYTES:
        return draw(st.binary(max_size=5))
    shape = [draw(st.integers(0, 3)) if size is None else size for size in of_type.shape]
    layout = NUMPY[of_type.dtype]
    size = math.prod(shape) * layout.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if of_type.dtype is DType.BOOL:
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, layout).reshape(shape)


def as_text(value: Value) -> bytes | None:
    """The JSON of a value; None if not all of it is in its JSON: NaN, infinity, and dimensions behind an empty one."""
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        if (value.dtype.kind == "f" and not np.isfinite(value).all()) or not value.size:
            return None
        value = value.tolist()
    return json.dumps(value).encode()


def part_of(value: Value, of_type: InputType) -> Any:
    if not isinstance(value, np.ndarray):
        return as_text(value)
    return make_array(OutputForm(of_type.dtype, value.shape, of_type.dtype), value.tobytes())


@st.composite
def outputs(draw: st.DrawFn, of_type: ValueType) -> tuple[list[Value], Output]:
    """The values of a row, and an output with them in one of the forms that a container may send."""
    if isinstance(of_type, InputType):
        value = draw(values(of_type))
        text = as_text(value) if draw(st.booleans()) else None
        return [value], text if text is not None else part_of(value, of_type)
    of_row = [draw(values(field.type)) for field in of_type.fields]
    texts = [as_text(value) for value in of_row]
    if draw(st.booleans()) and None not in texts:
        return of_row, b"{" + b",".join(
            b'"%b":%b' % (name.encode(), text or b"") for name, text in zip(of_type.names, texts)
        ) + b"}"
    parts = tuple(part_of(value, field.type) for value, field in zip(of_row, of_type.fields))
    order = draw(st.permutations(range(len(parts))))
    names = tuple(of_type.names[place] for place in order)
    return of_row, make_record(names_of(names), tuple(parts[place] for place in order))


@st.composite
def batches(draw: st.DrawFn) -> tuple[ValueType, list[list[Value]], list[Output]]:
    of_type = draw(types | records)
    rows = [draw(outputs(of_type)) for _ in range(draw(st.integers(1, 4)))]
    return of_type, [of_row for of_row, _ in rows], [output for _, output in rows]


def expected(of_type: InputType, rows: Sequence[Value]) -> tuple[str, list[int], Any]:
    """The tensor of these rows: datatype, shape, and an array or the raw elements."""
    datatype = DATATYPES[of_type.dtype]
    if not of_type.dtype.is_numeric:
        elements = [value.encode() if isinstance(value, str) else value for value in rows]
        return datatype, [len(rows), 1], elements
    shape = [max(value.shape[place] for value in rows) for place in range(len(of_type.shape))]
    whole = np.full((len(rows), *shape), np.nan if of_type.dtype in FLOATS else 0, NUMPY[of_type.dtype])
    for row, value in enumerate(rows):
        whole[(row, *map(slice, value.shape))] = value
    return datatype, [len(rows), *(shape or [1])], whole


def as_bytes(tensor: Any) -> bytes:
    """The tensor as bytes of binary data."""
    if isinstance(tensor, np.ndarray):
        return tensor.tobytes()
    return b"".join(struct.pack("<I", len(element)) + element for element in tensor)


@given(batches(), st.booleans(), st.sets(st.integers(0, 3)))
def test_a_declared_type_is_kept_in_each_protocol(
    batch: tuple[ValueType, list[list[Value]], list[Output]], nan_as_text: bool, defaults: set[int]
) -> None:
    of_type, rows, came = batch
    fields = of_type.fields if isinstance(of_type, RecordType) else (Field("output", of_type),)
    wanted = {field.name: expected(field.type, column) for field, column in zip(fields, zip(*rows))}
    came = [with_nan_as_text(output) for output in came] if nan_as_text else came
    # Whether a row is the default does not matter either.
    answers = [
        Answer(number, output, 1.0, "timeout" if number in defaults else None) for number, output in enumerate(came)
    ]
    tensors = OutputTensors(Conversion(of_type), nan_as_text=nan_as_text)

    for is_binary in (False, True):
        encoded = finish(encode("m", None, answers, AnswerForm(is_binary=is_binary), tensors))
        body = b"".join(encoded.parts)
        head = json.loads(body[: encoded.json_bytes])
        at = encoded.json_bytes or 0
        assert [output["name"] for output in head["outputs"]] == list(wanted)
        for output in head["outputs"]:
            datatype, shape, tensor = wanted[output["name"]]
            assert (output["datatype"], output["shape"]) == (datatype, shape)
            if is_binary:
                size = output["parameters"]["binary_data_size"]
                assert body[at : at + size] == as_bytes(tensor)
                at += size
            elif isinstance(tensor, np.ndarray):
                flat = [np.nan if value is None else value for value in output["data"]]
                is_odd = tensor.dtype.kind == "f" and not nan_as_text
                finite = np.where(np.isfinite(tensor), tensor, np.nan) if is_odd else tensor
                assert None not in output["data"] or not nan_as_text
                assert np.array_equal(np.array(flat, tensor.dtype), finite.ravel(), equal_nan=tensor.dtype.kind == "f")
            else:
                is_base64 = output.get("parameters") == {"content_type": "base64"}
                decode = base64.b64decode if is_base64 else str.encode
                assert [decode(text) for text in output["data"]] == tensor

    exchange, codec = Exchange(None), MessageCodec("m")  # type: ignore[arg-type]
    for is_raw in (False, True):
        form = AnswerForm(is_binary=is_raw)
        message = InferResponse.FromString(b"".join(finish(codec.encode(exchange, None, answers, form, tensors))))
        assert [output.name for output in message.outputs] == list(wanted)
        for place, output in enumerate(message.outputs):
            datatype, shape, tensor = wanted[output.name]
            assert (output.datatype, list(output.shape)) == (datatype, shape)
            if is_raw:
                assert message.raw_output_contents[place] == as_bytes(tensor)
                continue
            found = list(getattr(output.contents, FIELD_OF[datatype]))
            if isinstance(tensor, np.ndarray):
                own = np.array(found, tensor.dtype)
                assert np.array_equal(own, tensor.ravel(), equal_nan=tensor.dtype.kind == "f")
            else:
                assert found == tensor
