"""Answers to infer requests as messages."""

import struct
from collections.abc import Sequence
from functools import lru_cache

from clipper.values.outputs.output import TypedOutput
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.responses import Parts
from clipper.worker.frontend.inference.answers import (
    Answer,
    binary,
    output_of,
    parameters_of,
    usual_array,
    usual_number,
    version_of,
)
from clipper.worker.frontend.inference.requests import OUTPUT, AnswerForm
from clipper.worker.frontend.inference.tensors import datatype_of
from clipper.worker.frontend.rpc.contents import typed
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import delimited, delimited_head, encode, varint

RESPONSE = OPEN_INFERENCE.message("ModelInferResponse")
_OUTPUT_TENSOR = OPEN_INFERENCE.message("ModelInferResponse.InferOutputTensor")
_NUMBERS = {field.name: field.number for field in RESPONSE.fields.values()}
_CONTENTS = next(field.number for field in _OUTPUT_TENSOR.fields.values() if field.name == "contents")
# Remembered types and shapes of arrays. A model has one or a few; one that varies them fills this up.
MAX_ARRAYS = 64
# Remembered beginnings of answers: an ensemble has one for each subset of its models that answers in time.
MAX_OPENINGS = 1024
_PACK_FLOAT, _PACK_INTEGER = struct.Struct("<d").pack, struct.Struct("<q").pack


def _choices(value: object) -> dict[str, object]:
    """A parameter's value. Of a number that is not whole also its text, since KServe's protocol has no doubles: clients
    that know both take the last one of a oneof, which is the number, and others the text."""
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


@lru_cache(maxsize=1024)  # most answers have one of a few values, such as 1
def _confidence(value: float) -> bytes:
    return _parameter("confidence", float(value))


def _usual_output(datatype: str) -> bytes:
    """All of an output that is one number, up to the number's eight bytes."""
    output = encode(RESPONSE, {"outputs": [{"name": OUTPUT, "datatype": datatype, "shape": [1]}]})
    return output + delimited(_NUMBERS["raw_output_contents"], bytes(8))[:-8]


# What stands in the usual answer between what differs.
_NO_DEFAULT = _parameter("default", False)
_FLOAT, _INTEGER = _usual_output("FP64"), _usual_output("INT64")


class MessageCodec:
    """Answers of an application as ``ModelInferResponse``, typed where a request was and else raw."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._openings: dict[tuple[str | None, str], bytes] = {}
        self._arrays: dict[tuple[str, tuple[int, ...]], bytes] = {}

    def usual(self, exchange: Exchange, version: str | None, answer: Answer, form: AnswerForm) -> bytes | None:
        array = usual_array(answer, form)
        if array is not None:
            output = self._array(array)
        elif form.outputs and form.outputs[0][1] and (value := usual_number(answer, form)) is not None:
            output = _FLOAT + _PACK_FLOAT(value) if isinstance(value, float) else _INTEGER + _PACK_INTEGER(value)
        else:
            return None
        source = answer.source
        opening = self._openings.get((version, source.text))
        if opening is None:
            if len(self._openings) >= MAX_OPENINGS:
                self._openings.clear()
            told = b"".join([_parameter(name, value) for name, value in source.parameters.items()])
            opening = self._opening(version_of(version, (answer,))) + told
            self._openings[version, source.text] = opening
        query_id = b"\x0a\x08query_id\x12%b" % _sized(b"\x10" + varint(answer.query_id))
        return b"".join(
            (
                opening,
                b"\x22",  # parameters
                _sized(query_id),
                _NO_DEFAULT,
                _confidence(answer.confidence),
                output,
            )
        )

    def encode(self, exchange: Exchange, version: str | None, answers: Sequence[Answer], form: AnswerForm) -> Parts:
        parameters = {name: _choices(value) for name, value in parameters_of(answers).items()}
        head = {"id": form.id, "parameters": parameters}
        parts = [self._opening(version_of(version, answers)), encode(RESPONSE, head)]
        raw: list[bytes] = []
        for name, is_raw in form.outputs:
            found = yield from output_of(name, answers)
            pieces = yield from found.pieces(binary if is_raw else typed, is_binary=is_raw)
            size_bytes = sum(map(len, pieces))
            tensor = encode(_OUTPUT_TENSOR, {"name": name, "datatype": found.datatype, "shape": found.shape})
            if is_raw:
                raw += [delimited_head(_NUMBERS["raw_output_contents"], size_bytes), *pieces]
            else:
                tensor += delimited_head(_CONTENTS, size_bytes)
            parts.append(delimited_head(_NUMBERS["outputs"], len(tensor) + (0 if is_raw else size_bytes)) + tensor)
            parts += () if is_raw else pieces
        return [*parts, *raw]

    def _array(self, array: TypedOutput) -> bytes:
        """All of an output that is an array."""
        datatype, shape = datatype_of(array.form.dtype).name, array.form.shape
        head = self._arrays.get((datatype, shape))
        if head is None:
            if len(self._arrays) >= MAX_ARRAYS:
                self._arrays.clear()
            output = {"name": OUTPUT, "datatype": datatype, "shape": [1, *shape]}
            head = self._arrays[datatype, shape] = encode(RESPONSE, {"outputs": [output]})
        return head + delimited(_NUMBERS["raw_output_contents"], array.data)

    def _opening(self, version: str | None) -> bytes:
        return encode(RESPONSE, {"model_name": self._name, "model_version": version})


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data
