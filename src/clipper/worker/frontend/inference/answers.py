"""The answer to an infer request: makes tensors of outputs, which are JSON texts or arrays."""

import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipper.values.outputs.json_text import json_values
from clipper.values.outputs.long_lists import Ragged, elements, shape_of
from clipper.values.outputs.output import Output, RecordOutput, TypedOutput, is_long, text_bytes
from clipper.worker.frontend.inference.requests import OUTPUT, AnswerForm
from clipper.worker.frontend.inference.tensors import DATATYPES, datatype_of
from clipper.worker.frontend.limits import DIRECT_BODY_BYTES
from clipper.worker.frontend.long_work import done
from clipper.worker.selection.query import NO_SOURCE, Source

# Converting this many elements takes a tenth of a millisecond.
PIECE = 2000
_LENGTH = struct.Struct("<I")
_PACK_FLOAT, _PACK_INTEGER = struct.Struct("<d").pack, struct.Struct("<q").pack
_INT64 = range(-(2**63), 2**63)
# The first one that all whole numbers of a tensor fit into is its datatype.
_INTEGERS = {"INT64": _INT64, "UINT64": range(2**64)}
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class OutputType(NamedTuple):
    """The type of a model's outputs. ``shape`` is the shape of one output; -1 is any length."""

    datatype: str
    shape: tuple[int, ...] = ()


# The type that any output fits: the text of its JSON.
ANY = OutputType("BYTES")


class Answer(NamedTuple):
    """The answer to one row.

    Attributes:
        query_id: names the query in feedback.
        output: JSON text, or an array.
        confidence: 0 to 1.
        reason: the error code behind a default output; None if the output is not the default.
        source: the versions that gave it.
    """

    query_id: int
    output: Output
    confidence: float
    reason: str | None = None
    source: Source = NO_SOURCE


def answer_bytes(answer: Answer, form: AnswerForm) -> int:
    """Return a bound of what an answer's output takes, as it is sent."""
    output = answer.output
    if isinstance(output, TypedOutput) and all(is_binary for name, is_binary in form.outputs if name == OUTPUT):
        return len(output.data)
    return text_bytes(output)


# Makes bytes of elements of a datatype.
Convert = Callable[[str, list[Any]], bytes]


class Column(NamedTuple):
    """One output tensor over all rows. ``rows``: its elements in row-major order: values, or what has them, which is a
    text of lists or an array."""

    datatype: str
    shape: tuple[int, ...]
    rows: Sequence[list[Any] | Output]

    def pieces(self, convert: Convert, *, is_binary: bool) -> Generator[None, None, list[bytes]]:
        """Return its elements as ``convert`` makes them of values; as binary, arrays of one type are as they are."""
        arrays = [row for row in self.rows if isinstance(row, TypedOutput)]
        if is_binary and len(arrays) == len(self.rows):
            return [array.data for array in arrays]
        pieces: list[bytes] = []
        for row in self.rows:
            for values in _values(row):
                pieces.append(convert(self.datatype, values))
                yield
        return pieces


def _values(row: list[Any] | Output) -> Iterator[list[Any]]:
    if isinstance(row, TypedOutput):
        yield from json_values(row.form, row.data, PIECE)
    elif isinstance(row, bytes | RecordOutput):
        yield from elements(bytes(row))
    else:
        for start in range(0, len(row), PIECE):
            yield row[start : start + PIECE]


def type_of(output: Output) -> OutputType:
    """Return the type of a model's outputs, judged by one of them."""
    found = done(column([output]))
    return OutputType(found.datatype, found.shape[1:])


class Encoded(NamedTuple):
    """The body of an answer, in parts. ``json_bytes`` is the JSON's length if binary tensors follow it; else None."""

    parts: list[bytes]
    json_bytes: int | None


def column(outputs: Sequence[Output]) -> Generator[None, None, Column]:
    """Make one tensor of all rows' outputs, in steps of a few milliseconds at most.

    Arrays of one type and shape keep both, and their bytes are those of a binary tensor. In texts whole numbers become
    INT64, or UINT64 if one is 2^63 or more; other numbers FP64, booleans BOOL and strings BYTES. Nested lists become
    further dimensions if those of all rows have the same shape. Any other outputs become BYTES of their JSON text.
    """
    arrays = [output for output in outputs if isinstance(output, TypedOutput)]
    forms = {(array.form.dtype, array.form.shape) for array in arrays}
    if len(arrays) == len(outputs) and len(forms) == 1:
        dtype, of_one = forms.pop()
        return Column(datatype_of(dtype).name, (len(arrays), *of_one), arrays)
    rows: list[list[Any] | Output] = []
    shape: tuple[int, ...] | None = None
    kinds: set[type] = set()
    fitting = frozenset(_INTEGERS)
    for index, output in enumerate(outputs):
        if is_long(output):
            own, seen, fit = yield from _measure(bytes(output))
            rows.append(bytes(output))
        else:
            try:
                flat, own = _flat(_decode(bytes(output)))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                break
            seen, fit = set(map(type, flat)), _fit(flat)
            rows.append(flat)
            if index % 100 == 99 or len(flat) > PIECE:
                yield
        if shape not in (None, own):
            break
        shape = own
        kinds |= seen
        fitting &= fit
    else:
        whole = (len(outputs), *(shape or ()))
        # One list of short rows' values is converted in fewer steps.
        if not any(isinstance(row, bytes) for row in rows):
            rows = [[value for row in rows if isinstance(row, list) for value in row]]
        if kinds <= {float, int} and "INT64" in fitting:
            return Column("FP64" if float in kinds else "INT64", whole, rows)
        if kinds == {int} and fitting:
            return Column("UINT64", whole, rows)
        if kinds in ({bool}, {str}):
            return Column("BOOL" if kinds == {bool} else "BYTES", whole, rows)
    return Column("BYTES", (len(outputs),), [[bytes(output).decode()] for output in outputs])


def _fit(values: list[Any]) -> frozenset[str]:
    """Return the datatypes into which all whole numbers among these values fit."""
    integers = [value for value in values if type(value) is int]
    least, most = min(integers, default=0), max(integers, default=0)
    return frozenset(name for name, bounds in _INTEGERS.items() if least in bounds and most in bounds)


def _measure(text: bytes) -> Generator[None, None, tuple[tuple[int, ...], set[type], frozenset[str]]]:
    """Return the shape of a long text's lists, the types of their elements, and whether these fit as ``_fit`` says.

    If it has no such shape, its only element is a list.
    """
    marks, kinds, count, fit = bytearray(), set[type](), 0, frozenset(_INTEGERS)
    try:
        for values in elements(text, marks):
            kinds.update(map(type, values))
            count += len(values)
            fit &= _fit(values)
            yield
        return shape_of(bytes(marks), count), kinds, fit
    except Ragged:
        return (), {list}, fit


def _flat(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Return the elements of nested lists, and their shape: as many dimensions as all lists have in common."""
    flat, shape = [value], []
    while type(flat[0]) is list and flat[0]:
        length = len(flat[0])
        if not all(type(part) is list and len(part) == length for part in flat):
            break
        shape.append(length)
        flat = [item for part in flat for item in part]
    return flat, tuple(shape)


def _is_usual(answer: Answer, form: AnswerForm) -> bool:
    return not form.id and answer.reason is None and len(form.outputs) == 1 and form.outputs[0][0] == OUTPUT


def usual_array(answer: Answer, form: AnswerForm) -> TypedOutput | None:
    """Return the output of an answer that is one array, wanted as binary, and needs no further fields; else None."""
    output = answer.output
    if not isinstance(output, TypedOutput) or len(output.data) > DIRECT_BODY_BYTES or not _is_usual(answer, form):
        return None
    return output if form.outputs[0][1] else None


def usual_number(answer: Answer, form: AnswerForm) -> float | None:
    """Return the output of the usual answer, which is one number and needs no further fields; else None."""
    output = answer.output
    if not isinstance(output, bytes) or not _is_usual(answer, form):
        return None
    try:
        value = _decode(output)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if type(value) is float or (type(value) is int and value in _INT64):
        return value
    return None


def encode_usual(opening: bytes, answer: Answer, form: AnswerForm) -> Encoded | None:
    """The usual answer to one row, put together from constants in a third of the time; else None. It is a number, or an
    array that is wanted as binary. ``opening``: what ``opening`` returned."""
    array, lengths, data = usual_array(answer, form), b"", b""
    if array is not None:
        datatype, data = datatype_of(array.form.dtype).name.encode(), array.data
        lengths = b"".join([b",%d" % length for length in array.form.shape])
    else:
        value = usual_number(answer, form)
        if value is None:
            return None
        datatype, pack = (b"FP64", _PACK_FLOAT) if type(value) is float else (b"INT64", _PACK_INTEGER)
        data = pack(value) if form.outputs[0][1] else b""
    is_binary = form.outputs[0][1]
    where = b'"parameters":{"binary_data_size":%d}' % len(data) if is_binary else b'"data":[%b]' % bytes(answer.output)
    text = (
        b'%b,"parameters":{"query_id":%d,"default":false,"confidence":%r%b},"outputs":[{"name":"output",'
        b'"datatype":"%b","shape":[1%b],%b}]}'
        % (opening, answer.query_id, answer.confidence, answer.source.parameters_json, datatype, lengths, where)
    )
    return Encoded([text, data], len(text)) if is_binary else Encoded([text], None)


def opening(model: str, version: str | None) -> bytes:
    """Return the beginning that all answers of a model share."""
    named = {"model_name": model} if version is None else {"model_name": model, "model_version": version}
    return _encode(named)[:-1]


def encode(
    model: str, version: str | None, answers: Sequence[Answer], form: AnswerForm
) -> Generator[None, None, Encoded]:
    """Encode the answer to a request, in steps of a few milliseconds at most.

    The parameters have the query id, confidence and default of a request with one row. For several rows, a request
    asks for them by name, as outputs.
    """
    reply: dict[str, Any] = {"model_name": model}
    version = version_of(version, answers)
    if version is not None:
        reply["model_version"] = version
    if form.id:
        reply["id"] = form.id
    reply["parameters"] = parameters_of(answers)
    parts, tensors = [_encode(reply)[:-1] + b',"outputs":['], []
    for number, (name, is_binary) in enumerate(form.outputs):
        found = yield from output_of(name, answers)
        pieces = yield from found.pieces(binary if is_binary else _json, is_binary=is_binary)
        head: dict[str, Any] = {"name": name, "datatype": found.datatype, "shape": found.shape}
        if number:
            parts.append(b",")
        if is_binary:
            parts.append(_encode(head | {"parameters": {"binary_data_size": sum(map(len, pieces))}}))
            tensors += pieces
        else:
            # Not copied once more: the pieces may have a hundred megabytes together.
            parts.append(_encode(head)[:-1] + b',"data":[' + b"".join(pieces[:1])[1:])
            parts += pieces[1:]
            parts.append(b"]}")
    parts.append(b"]}")
    is_any_binary = any(is_binary for _, is_binary in form.outputs)
    return Encoded(parts + tensors, sum(map(len, parts)) if is_any_binary else None)


def output_of(name: str, answers: Sequence[Answer]) -> Generator[None, None, Column]:
    """Return one output tensor over all rows, in steps of a few milliseconds at most."""
    if name == OUTPUT:
        return (yield from column([answer.output for answer in answers]))
    return _about(name, answers)


def _about(name: str, answers: Sequence[Answer]) -> Column:
    """Return an output tensor other than the model's output."""
    shape = (len(answers),)
    match name:
        case "query_id":
            return Column("INT64", shape, [[answer.query_id for answer in answers]])
        case "confidence":
            return Column("FP64", shape, [[answer.confidence for answer in answers]])
        case "default":
            return Column("BOOL", shape, [[answer.reason is not None for answer in answers]])
        case "models":
            return Column("BYTES", shape, [[answer.source.text for answer in answers]])
    return Column("BYTES", shape, [[answer.reason or "" for answer in answers]])


def _common_source(answers: Sequence[Answer]) -> Source:
    """Return the source of all rows but defaults; none if they differ."""
    sources = {answer.source.text: answer.source for answer in answers if answer.reason is None}
    return sources.popitem()[1] if len(sources) == 1 else NO_SOURCE


def version_of(asked: str | None, answers: Sequence[Answer]) -> str | None:
    """Return the version that gave all rows, or that the request asked; None if several versions gave them."""
    return _common_source(answers).version if asked is None else asked


def parameters_of(answers: Sequence[Answer]) -> dict[str, object]:
    """Return the answer's parameters, whose values must be strings, numbers or booleans, so not one for each row."""
    parameters: dict[str, object] = {"default": any(answer.reason is not None for answer in answers)}
    if len(answers) == 1:
        (answer,) = answers
        parameters = {"query_id": answer.query_id, **parameters, "confidence": answer.confidence}
        if answer.reason is not None:
            parameters["default_reason"] = answer.reason
    return {**parameters, **_common_source(answers).parameters}


def _json(datatype: str, values: list[Any]) -> bytes:
    """Elements with a comma before each."""
    return b"," + _encode(values)[1:-1]


def binary(datatype: str, values: list[Any]) -> bytes:
    """Elements one after another, little-endian; each of BYTES has its length before it."""
    numpy = DATATYPES[datatype].numpy
    if numpy is not None:
        return np.array(values, numpy).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
