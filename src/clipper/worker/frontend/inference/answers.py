"""The answer to an infer request: makes tensors of outputs, which are JSON texts, arrays, or several of them."""

import struct
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from clipper.errors import ModelFailed
from clipper.values.decoding import NOT_JSON
from clipper.values.outputs.output import Output, RecordOutput, TypedOutput, text_bytes
from clipper.values.types import DType
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.responses import Joined, Part, Parts
from clipper.worker.frontend.inference.output_tensors import (
    OutputColumn,
    OutputTensor,
    OutputTensors,
    about,
    column,
    column_of,
)
from clipper.worker.frontend.inference.requests import OUTPUT, AnswerForm
from clipper.worker.frontend.inference.tensors import BASE64_ELEMENTS
from clipper.worker.frontend.limits import DIRECT_BODY_BYTES
from clipper.worker.selection.query import NO_SOURCE, Source

# So many bytes are written in one step, and so many short rows are converted.
_BYTES_PER_STEP, _ROWS_PER_STEP = 16_384, 100
_LENGTH = struct.Struct("<I")
# Packs the only number of the usual answer.
_PACK = {DType.FLOAT64: struct.Struct("<d").pack, DType.INT64: struct.Struct("<q").pack}
_INT64 = range(-(2**63), 2**63)
# Integers that float64 has exactly.
_EXACT = range(-(2**53), 2**53 + 1)
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Answer(NamedTuple):
    """The answer to a row.

    Attributes:
        output: JSON text, an array, or several of them with names.
        confidence: 0 to 1.
        reason: the error code behind a default output; None if the output is not the default.
        source: the versions that gave the answer.
    """

    query_id: int
    output: Output
    confidence: float
    reason: str | None = None
    source: Source = NO_SOURCE


def answer_bytes(answer: Answer, form: AnswerForm) -> int:
    """Return a bound on the size of an answer's output in the form in which it is sent."""
    output = answer.output
    if isinstance(output, bytes):
        return len(output)
    if isinstance(output, RecordOutput):
        return text_bytes(output)
    if form.is_binary if not form.outputs else all(is_binary for _, is_binary in form.outputs):
        return len(output.data)
    return text_bytes(output) if output.is_long else output.most_bytes


class Encoded(NamedTuple):
    """The body of an answer, in parts. ``json_bytes`` is the JSON's length if binary tensors follow it; else None."""

    parts: list[Part]
    json_bytes: int | None


class Usual(NamedTuple):
    """The only output of an answer that needs no further fields: numbers.

    Attributes:
        data: the numbers in the form of a binary tensor.
        text: the only number as JSON; empty if it is requested as binary.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes
    text: bytes


def usual_output(answer: Answer, form: AnswerForm, tensors: OutputTensors) -> Usual | None:
    """Return the output of the usual answer to one row: a number, or an array that is wanted as binary; else None."""
    tensor, conversion, output = tensors.plain, tensors.conversion, answer.output
    if tensor is None or conversion is None or tensor.field is None or form.id or answer.reason is not None:
        return None
    is_binary = form.is_binary
    if form.outputs:
        if len(form.outputs) > 1 or form.outputs[0][0] != OUTPUT:
            return None
        is_binary = form.outputs[0][1]
    if isinstance(output, TypedOutput):
        if not is_binary or not conversion.keeps(output.form) or len(output.data) > DIRECT_BODY_BYTES:
            return None
        return Usual(tensor.datatype, output.form.shape or (1,), output.data, b"")
    dtype = tensor.field.type.dtype
    if not isinstance(output, bytes) or tensor.field.type.shape or dtype not in _PACK:
        return None
    try:
        value = _decode(output)
    except NOT_JSON:
        return None
    is_whole = type(value) is int and value in (_EXACT if dtype is DType.FLOAT64 else _INT64)
    if not is_whole and not (type(value) is float and dtype is DType.FLOAT64):
        return None
    return Usual(tensor.datatype, (1,), _PACK[dtype](value), b"" if is_binary else output)


def encode_usual(opening: bytes, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors) -> Encoded | None:
    """Encode the usual answer to one row in a third of the time, from constants; return None for other answers."""
    (answer,) = answers
    usual = usual_output(answer, form, tensors)
    if usual is None:
        return None
    datatype, shape, data, number = usual
    where = b'"data":[%b]' % number if number else b'"parameters":{"binary_data_size":%d}' % len(data)
    lengths = b"".join([b",%d" % length for length in shape])
    text = (
        b'%b,"parameters":{"query_id":%d,"default":false,"confidence":%r%b},"outputs":[{"name":"output",'
        b'"datatype":"%b","shape":[1%b],%b}]}'
        % (
            opening,
            answer.query_id,
            answer.confidence,
            answer.source.parameters_json,
            datatype.encode(),
            lengths,
            where,
        )
    )
    return Encoded([text], None) if number else Encoded([text, data], len(text))


def encode_usual_rows(
    opening: bytes, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
) -> Encoded | None:
    """The usual answer to several rows: numbers in JSON, as they came; else None. See ``encode_usual``."""
    is_plain = form.outputs == ((OUTPUT, False),) if form.outputs else not form.is_binary
    if not is_plain or form.id or any(answer.reason is not None for answer in answers):
        return None
    outputs = [answer.output for answer in answers]
    tensor, source = tensors.plain, common_source(answers)
    if tensor is None or source.version is None or not tensors.are_texts_of_type(outputs):
        return None
    numbers = b",".join(outputs)  # type: ignore[arg-type]  # all are texts
    text = (
        b'%b,"parameters":{"default":false%b},"outputs":[{"name":"output","datatype":"%b","shape":[%d,1],"data":[%b]}]}'
        % (opening, source.parameters_json, tensor.datatype.encode(), len(outputs), numbers)
    )
    return Encoded([text], None)


def opening(model: str, version: str | None) -> bytes:
    """Return the beginning that all answers of a model share."""
    named = {"model_name": model} if version is None else {"model_name": model, "model_version": version}
    return _encode(named)[:-1]


def encode(
    model: str, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
) -> Generator[None, None, Encoded]:
    """Encode the answer to a request, in steps of a few milliseconds at most.

    The parameters have the query id, confidence and default of a request with one row. For several rows, a request
    asks for them by name, as outputs. Raises as ``columns``.
    """
    reply: dict[str, Any] = {"model_name": model}
    source = common_source(answers)
    version = source.version if version is None else version
    if version is not None:
        reply["model_version"] = version
    if form.id:
        reply["id"] = form.id
    reply["parameters"] = parameters_of(answers, source)
    parts: list[Part] = [_encode(reply)[:-1] + b',"outputs":[']
    blocks: list[Part] = []
    is_any_binary = False
    for name, is_binary, found in (yield from columns(answers, form, tensors)):
        head: dict[str, Any] = {"name": name, "datatype": found.datatype, "shape": found.shape}
        if found.is_base64 and not is_binary:
            head["parameters"] = BASE64
        if len(parts) > 1:
            parts.append(b",")
        if is_binary:
            pieces = yield from all_pieces(binary_pieces(found))
            parts.append(_encode(head | {"parameters": {"binary_data_size": sum(map(len, pieces))}}))
            blocks += pieces
            is_any_binary = True
        else:
            pieces = yield from all_pieces(found.json_pieces())
            # The pieces are not copied again: together they may have a hundred megabytes.
            parts.append(_encode(head)[:-1] + b',"data":[' + b"".join(pieces[:1])[1:])
            parts += pieces[1:]
            parts.append(b"]}")
    parts.append(b"]}")
    return Encoded(parts + blocks, sum(map(len, parts)) if is_any_binary else None)


# The parameters of tensors of bytes in JSON.
BASE64 = {"content_type": BASE64_ELEMENTS}


def columns(
    answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
) -> Generator[None, None, list[tuple[str, bool, OutputColumn]]]:
    """Return the name of each output tensor, whether it is binary, and the tensor over all rows, in steps.

    Raises ModelFailed if an output is not of the type, WrongInput if the request asks for an output that is not there,
    and TooLarge, as ``column``.
    """
    asked = tensors.asked(form)
    outputs: Sequence[Output] = [answer.output for answer in answers]
    whole = None
    if any(tensor is not None for _, _, tensor in asked):
        whole = tensors.at_once(outputs)
        outputs = (yield from _converted(answers, tensors)) if whole is None else outputs
    return [
        (
            name,
            is_binary,
            _column(name, tensor, answers, outputs, tensors)
            if whole is None or tensor is None
            else column_of(tensor, whole, nan_as_text=tensors.nan_as_text),
        )
        for name, is_binary, tensor in asked
    ]


def _converted(answers: Sequence[Answer], tensors: OutputTensors) -> Generator[None, None, Sequence[Output]]:
    outputs: list[Output] = []
    for row, answer in enumerate(answers):
        try:
            outputs.append((yield from tensors.converted(answer.output, is_default=answer.reason is not None)))
        except ModelFailed as error:
            raise ModelFailed(f"row {row}: {error}" if len(answers) > 1 else str(error)) from error
        if row % _ROWS_PER_STEP == _ROWS_PER_STEP - 1:
            yield
    return outputs


def _column(
    name: str,
    tensor: OutputTensor | None,
    answers: Sequence[Answer],
    outputs: Sequence[Output],
    tensors: OutputTensors,
) -> OutputColumn:
    if tensor is not None:
        return column(tensor, outputs, nan_as_text=tensors.nan_as_text)
    match name:
        case "query_id":
            return about([answer.query_id for answer in answers], DType.INT64)
        case "confidence":
            return about([answer.confidence for answer in answers], DType.FLOAT64)
        case "default":
            return about([answer.reason is not None for answer in answers], DType.BOOL)
        case "models":
            return about([answer.source.text for answer in answers], DType.STRING)
    return about([answer.reason or "" for answer in answers], DType.STRING)


def all_pieces(pieces: Iterator[Part]) -> Parts:
    """Return all pieces, short ones joined; make some of them in each step."""
    joined = Joined()
    size_bytes = 0
    for piece in pieces:
        joined.add(piece)
        size_bytes += len(piece) + _BYTES_PER_STEP // _ROWS_PER_STEP
        if size_bytes > _BYTES_PER_STEP:
            size_bytes = 0
            yield
    return joined.all()


def binary_pieces(of: OutputColumn) -> Iterator[Part]:
    """Yield elements one after another, little-endian; an element of BYTES has its length before it.

    A large array is yielded as it is: to copy 16 MiB takes ten milliseconds, and twice the memory.
    """
    for chunk in of.chunks():
        if isinstance(chunk, list):
            yield b"".join([part for element in chunk for part in (_LENGTH.pack(len(element)), element)])
        else:
            yield chunk.tobytes() if chunk.nbytes <= limits.DIRECT_BODY_BYTES else chunk.data.cast("B")


def common_source(answers: Sequence[Answer]) -> Source:
    """Return the source of all rows that are no defaults; none if they have several."""
    # Most rows of a request share the object.
    sources = {source.text: source for source in {answer.source for answer in answers if answer.reason is None}}
    return sources.popitem()[1] if len(sources) == 1 else NO_SOURCE


def parameters_of(answers: Sequence[Answer], source: Source) -> dict[str, object]:
    """Return the answer's parameters, by the common ``source``: strings, numbers or booleans, so none for each row."""
    parameters: dict[str, object] = {"default": any(answer.reason is not None for answer in answers)}
    if len(answers) == 1:
        (answer,) = answers
        parameters = {"query_id": answer.query_id, **parameters, "confidence": answer.confidence}
        if answer.reason is not None:
            parameters["default_reason"] = answer.reason
    return {**parameters, **source.parameters}
