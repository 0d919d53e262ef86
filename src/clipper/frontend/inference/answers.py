"""The answer to an infer request: makes tensors of outputs, which models give as JSON text."""

import struct
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipper.frontend.inference.requests import OUTPUT, AnswerForm
from clipper.frontend.inference.tensors import DATATYPES
from clipper.frontend.long_work import done

# Converting this many elements takes a tenth of a millisecond.
PIECE = 2000
_LENGTH = struct.Struct("<I")
_PACK_FLOAT, _PACK_INTEGER = struct.Struct("<d").pack, struct.Struct("<q").pack
_INT64 = range(-(2**63), 2**63)
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
        output: JSON text.
        confidence: 0 to 1.
        reason: the error code behind a default output; None if the output is not the default.
    """

    query_id: int
    output: bytes
    confidence: float
    reason: str | None = None


class Column(NamedTuple):
    """One output tensor over all rows. ``values`` are its elements in row-major order."""

    datatype: str
    shape: tuple[int, ...]
    values: list[Any]


def type_of(output: bytes) -> OutputType:
    """Return the type of a model's outputs, judged by one of them."""
    found = done(column([output]))
    return OutputType(found.datatype, found.shape[1:])


class Encoded(NamedTuple):
    """The body of an answer. ``json_bytes`` is the JSON's length if binary tensors follow it; else None."""

    body: bytes
    json_bytes: int | None


def column(outputs: Sequence[bytes]) -> Generator[None, None, Column]:
    """Make one tensor of all rows' outputs, in steps of a few milliseconds at most.

    Whole numbers become INT64, other numbers FP64, booleans BOOL and strings BYTES. Nested lists become further
    dimensions if those of all rows have the same shape. Any other outputs become BYTES of their JSON text.
    """
    values: list[Any] = []
    shape: tuple[int, ...] | None = None
    kinds: set[type] = set()
    for index, output in enumerate(outputs):
        try:
            flat, own = _flat(_decode(output))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            break
        if shape not in (None, own):
            break
        shape = own
        kinds.update(map(type, flat))
        values += flat
        if index % 100 == 99 or len(flat) > PIECE:
            yield
    else:
        whole = (len(outputs), *(shape or ()))
        if kinds <= {float, int} and all(type(value) is float or value in _INT64 for value in values):
            return Column("FP64" if float in kinds else "INT64", whole, values)
        if kinds in ({bool}, {str}):
            return Column("BOOL" if kinds == {bool} else "BYTES", whole, values)
    return Column("BYTES", (len(outputs),), [output.decode() for output in outputs])


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


def usual_number(answer: Answer, form: AnswerForm) -> float | None:
    """Return the output of the usual answer, which is one number and needs no further fields; else None."""
    if form.id or answer.reason is not None or len(form.outputs) != 1 or form.outputs[0][0] != OUTPUT:
        return None
    try:
        value = _decode(answer.output)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if type(value) is float or (type(value) is int and value in _INT64):
        return value
    return None


def encode_number(opening: bytes, answer: Answer, form: AnswerForm) -> Encoded | None:
    """The usual answer, a number for one row, put together from constants in a third of the time; else None.

    Args:
        opening: what ``opening`` returned.
    """
    value = usual_number(answer, form)
    if value is None:
        return None
    datatype, pack = (b"FP64", _PACK_FLOAT) if type(value) is float else (b"INT64", _PACK_INTEGER)
    is_binary = form.outputs[0][1]
    data = b'"parameters":{"binary_data_size":8}' if is_binary else b'"data":[%b]' % answer.output
    text = (
        b'%b,"parameters":{"query_id":%d,"default":false,"confidence":%r},"outputs":[{"name":"output",'
        b'"datatype":"%b","shape":[1],%b}]}' % (opening, answer.query_id, answer.confidence, datatype, data)
    )
    return Encoded(text + pack(value), len(text)) if is_binary else Encoded(text, None)


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
    if version is not None:
        reply["model_version"] = version
    if form.id:
        reply["id"] = form.id
    reply["parameters"] = parameters_of(answers)
    heads, tensors = [], []
    for name, is_binary in form.outputs:
        found = yield from output_of(name, answers)
        head: dict[str, Any] = {"name": name, "datatype": found.datatype, "shape": found.shape}
        convert = binary if is_binary else _json
        pieces = []
        for start in range(0, len(found.values), PIECE):
            pieces.append(convert(found.datatype, found.values[start : start + PIECE]))
            yield
        if is_binary:
            head["parameters"] = {"binary_data_size": sum(map(len, pieces))}
            tensors += pieces
        else:
            head["data"] = msgspec.Raw(b"[%b]" % b",".join(pieces))
        heads.append(head)
    text = _encode(reply | {"outputs": heads})
    is_any_binary = any(is_binary for _, is_binary in form.outputs)
    return Encoded(b"".join((text, *tensors)), len(text)) if is_any_binary else Encoded(text, None)


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
            return Column("INT64", shape, [answer.query_id for answer in answers])
        case "confidence":
            return Column("FP64", shape, [answer.confidence for answer in answers])
        case "default":
            return Column("BOOL", shape, [answer.reason is not None for answer in answers])
    return Column("BYTES", shape, [answer.reason or "" for answer in answers])


def parameters_of(answers: Sequence[Answer]) -> dict[str, object]:
    """Return the answer's parameters, whose values must be strings, numbers or booleans, so not one for each row."""
    if len(answers) > 1:
        return {"default": any(answer.reason is not None for answer in answers)}
    (answer,) = answers
    parameters: dict[str, object] = {
        "query_id": answer.query_id,
        "default": answer.reason is not None,
        "confidence": answer.confidence,
    }
    if answer.reason is not None:
        parameters["default_reason"] = answer.reason
    return parameters


def _json(datatype: str, values: list[Any]) -> bytes:
    return _encode(values)[1:-1]


def binary(datatype: str, values: list[Any]) -> bytes:
    """Elements one after another, little-endian; each of BYTES has its length before it."""
    numpy = DATATYPES[datatype].numpy
    if numpy is not None:
        return np.array(values, numpy).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
