"""Encodes answers to infer requests as messages."""

from collections.abc import Sequence
from functools import lru_cache

from clipper.worker.frontend.http.responses import Part, Parts
from clipper.worker.frontend.inference.answers import (
    Answer,
    Usual,
    all_pieces,
    binary_pieces,
    columns,
    common_source,
    parameters_of,
    usual_output,
)
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.requests import OUTPUT, AnswerForm
from clipper.worker.frontend.rpc.contents import typed_pieces
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import delimited, delimited_head, encode, varint

RESPONSE = OPEN_INFERENCE.message("ModelInferResponse")
_OUTPUT_TENSOR = OPEN_INFERENCE.message("ModelInferResponse.InferOutputTensor")
_NUMBERS = {field.name: field.number for field in RESPONSE.fields.values()}
_CONTENTS = next(field.number for field in _OUTPUT_TENSOR.fields.values() if field.name == "contents")
# Remembered types and shapes of arrays. Most models have one or a few; a model that varies them fills the memory up.
MAX_ARRAYS = 64
# Remembered beginnings of answers: an ensemble has a beginning for each subset of its models that answers in time.
MAX_OPENINGS = 1024


def _choices(value: object) -> dict[str, object]:
    """Return a parameter's value. A number that is not whole also has its text, since KServe's protocol has no doubles.

    Clients that know both take the last of a oneof, which is the number; others take the text.
    """
    match value:
        case bool():
            return {"bool_param": value}
        case int():
            return {"int64_param": value}
        case float():
            return {"string_param": repr(value), "double_param": value}
    return {"string_param": value}


def _parameter(name: str, value: object) -> bytes:
    return encode(RESPONSE, {"parameters": {name: _choices(value)}})


@lru_cache(maxsize=1024)  # most answers have a value among a few, such as 1
def _confidence(value: float) -> bytes:
    return _parameter("confidence", float(value))


# The constant parts of the usual answer.
_NO_DEFAULT = _parameter("default", False)


class MessageCodec:
    """Encodes an application's answers as ``ModelInferResponse``: typed if the request was, and else raw."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._openings: dict[tuple[str | None, str], bytes] = {}
        self._arrays: dict[tuple[str, tuple[int, ...]], bytes] = {}

    def usual(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> bytes | None:
        answer = answers[0]
        found = usual_output(answer, form, tensors) if len(answers) == 1 else None
        if found is None or found.text:  # typed contents are rare
            return None
        source = answer.source
        opening = self._openings.get((version, source.text))
        if opening is None:
            if len(self._openings) >= MAX_OPENINGS:
                self._openings.clear()
            told = b"".join([_parameter(name, value) for name, value in source.parameters.items()])
            opening = self._opening(source.version if version is None else version) + told
            self._openings[version, source.text] = opening
        query_id = b"\x0a\x08query_id\x12%b" % _sized(b"\x10" + varint(answer.query_id))
        return b"".join(
            (
                opening,
                b"\x22",  # parameters
                _sized(query_id),
                _NO_DEFAULT,
                _confidence(answer.confidence),
                self._output(found),
            )
        )

    def encode(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> Parts:
        source = common_source(answers)
        parameters = {name: _choices(value) for name, value in parameters_of(answers, source).items()}
        opening = self._opening(source.version if version is None else version)
        parts: list[Part] = [opening, encode(RESPONSE, {"id": form.id, "parameters": parameters})]
        raw: list[Part] = []
        for name, is_raw, found in (yield from columns(answers, form, tensors)):
            pieces = yield from all_pieces(binary_pieces(found) if is_raw else typed_pieces(found))
            size_bytes = sum(map(len, pieces))
            tensor = encode(_OUTPUT_TENSOR, {"name": name, "datatype": found.datatype, "shape": found.shape})
            if is_raw:
                raw += [delimited_head(_NUMBERS["raw_output_contents"], size_bytes), *pieces]
            else:
                tensor += delimited_head(_CONTENTS, size_bytes)
            parts.append(delimited_head(_NUMBERS["outputs"], len(tensor) + (0 if is_raw else size_bytes)) + tensor)
            parts += () if is_raw else pieces
        return [*parts, *raw]

    def _output(self, usual: Usual) -> bytes:
        key = usual.datatype, usual.shape
        head = self._arrays.get(key)
        if head is None:
            if len(self._arrays) >= MAX_ARRAYS:
                self._arrays.clear()
            output = {"name": OUTPUT, "datatype": usual.datatype, "shape": [1, *usual.shape]}
            head = self._arrays[key] = encode(RESPONSE, {"outputs": [output]})
        return head + delimited(_NUMBERS["raw_output_contents"], usual.data)

    def _opening(self, version: str | None) -> bytes:
        return encode(RESPONSE, {"model_name": self._name, "model_version": version})


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data
