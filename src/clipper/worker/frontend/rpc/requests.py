"""Reads infer requests from messages: into the same ``Plan`` as REST's, and the place of each tensor's data."""

from collections.abc import Generator
from typing import Any

from clipper.errors import MalformedRequest
from clipper.worker.frontend.inference.requests import (
    MAX_TENSORS,
    Beside,
    InferHead,
    InferRequest,
    OutputHead,
    Plan,
    RequestReader,
    TensorHead,
    check_supported,
)
from clipper.worker.frontend.rpc.contents import as_binary
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import Values, decode, fields, split

REQUEST = OPEN_INFERENCE.message("ModelInferRequest")
_INPUT = OPEN_INFERENCE.message("ModelInferRequest.InferInputTensor")
_OUTPUT = OPEN_INFERENCE.message("ModelInferRequest.InferRequestedOutputTensor")
_PARAMETER = OPEN_INFERENCE.message("ModelInferRequest.ParametersEntry")
_NAME, _VERSION, _ID, RAW_INPUT_CONTENTS = 1, 2, 3, 7
# No name is longer; the message of an error shows less.
MAX_NAME_BYTES = 1024
# A few fields of each tensor, and parameters.
_MAX_FIELDS = 200
# The tensors and their data, and the other fields.
_MAX_REQUEST_FIELDS = 2 * MAX_TENSORS + _MAX_FIELDS


def who_is_asked(message: memoryview) -> tuple[str, str | None]:
    """Return a request's model, and version if it has one. Raises MalformedRequest if it is no request."""
    found = {_NAME: b"", _VERSION: b""}
    for index, (number, wire, value) in enumerate(fields(message)):
        if number in found and wire == 2:
            found[number] = bytes(value[:MAX_NAME_BYTES])
        if index > _MAX_REQUEST_FIELDS:
            raise MalformedRequest(f"message has over {_MAX_REQUEST_FIELDS} fields")
    try:
        model, version = found[_NAME].decode(), found[_VERSION].decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"model_name or model_version is not UTF-8: {error}") from error
    if not model:
        raise MalformedRequest("model_name is empty: expected the name of an application")
    return model, version or None


def id_of(message: memoryview) -> str:
    """Return a request's id without reading the whole request; empty if it has none, or is no message."""
    found = b""
    try:
        for index, (number, wire, value) in enumerate(fields(message)):
            if number == _ID and wire == 2:
                found = bytes(value[:MAX_NAME_BYTES])
            if index > 2 * _MAX_FIELDS:
                break
    except MalformedRequest:
        pass
    return found.decode(errors="replace")


def read_request(
    reader: RequestReader, message: memoryview, most_bytes: int
) -> Generator[None, None, tuple[Plan, InferRequest]]:
    """Read a request, in steps of a few milliseconds at most. Raises MalformedRequest, WrongInput or TooLarge."""
    found = split(REQUEST, message, _MAX_REQUEST_FIELDS)
    raw = found.get("raw_input_contents", [])
    texts = found.get("inputs", [])
    if not 1 <= len(texts) <= MAX_TENSORS:
        raise MalformedRequest(f"request has {len(texts)} inputs: expected 1 to {MAX_TENSORS}")
    inputs = []
    for text in texts:
        inputs.append(split(_INPUT, text, _MAX_FIELDS))
        yield
    if raw and len(raw) != len(inputs):
        raise MalformedRequest(f"request has {len(raw)} raw_input_contents: expected {len(inputs)}, one an input")
    tensors, data = [], []
    for index, each in enumerate(inputs):
        tensor = TensorHead(
            each.get("name", ""), each.get("datatype", ""), each.get("shape", []), _parameters(each, "binary_data_size")
        )
        check_supported(tensor)
        contents = each.get("contents", memoryview(b""))
        if raw and len(contents):
            raise MalformedRequest(f"input {tensor.name[:100]!r} has both contents and raw_input_contents")
        if raw:
            data.append(raw[index])
        else:
            name = tensor.name[:100]
            data.append((yield from as_binary(name, tensor.datatype, tensor.shape, contents, most_bytes)))
        tensors.append(tensor)
    head = InferHead(
        id=found.get("id") or None,
        # The reply's tensors are sent in the form of the request's.
        parameters=_parameters(found, "binary_data_output") | {"binary_data_output": bool(raw)},
        outputs=[_output(each) for each in found.get("outputs", [])],
    )
    plan = reader.plan_of(head, [(tensor, Beside(len(own))) for tensor, own in zip(tensors, data)])
    if plan.row_bytes is not None:
        return plan, InferRequest([bytes(data[0])], [None])
    values = {}
    for announced, own in zip(plan.order, data):
        values[announced.tensor.name] = yield from announced.reader.rows(announced.tensor, memoryview(own))
    return plan, (yield from reader.request_of(plan, values))


def _output(message: memoryview) -> OutputHead:
    found = split(_OUTPUT, message, _MAX_FIELDS)
    return OutputHead(found.get("name", ""), _parameters(found, "binary_data"))


def _parameters(found: Values, without: str) -> dict[str, Any]:
    """Return the parameters, without those with which REST, unlike a message, has to say how data comes."""
    parameters = {}
    for each in found.get("parameters", []):
        entry = decode(_PARAMETER, each, _MAX_FIELDS)
        value = next(iter(entry.get("value", {}).values()), None)
        parameters[entry.get("key", "")] = value
    parameters.pop(without, None)
    return parameters
