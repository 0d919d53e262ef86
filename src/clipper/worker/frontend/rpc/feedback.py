"""The method ``Observe``: turns messages into the JSON that REST's observe call takes, and its answer back."""

from collections.abc import Generator, Sequence

import msgspec

from clipper.errors import MalformedRequest
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend.observe_body import MAX_OBSERVATIONS
from clipper.worker.frontend.rpc.protocols import CLIPPER
from clipper.worker.frontend.rpc.wire import decode, encode, split

_REQUEST, _RESPONSE = CLIPPER.message("ObserveRequest"), CLIPPER.message("ObserveResponse")
_OBSERVATION = CLIPPER.message("Observation")
# The observations that take a few milliseconds.
_PER_STEP = 200
# JSON's names by those of the message, if they differ.
_AS_JSON = {"input_json": "input", "label_json": "label"}


def split_request(message: memoryview) -> tuple[str, list[memoryview]]:
    """Return the application's name, and the observations. Raises MalformedRequest if these are none or too many."""
    found = split(_REQUEST, message, MAX_OBSERVATIONS + 1)
    observations = found.get("observations", [])
    if not 1 <= len(observations) <= MAX_OBSERVATIONS:
        raise MalformedRequest(f"request has {len(observations)} observations: expected 1 to {MAX_OBSERVATIONS}")
    return found.get("model_name", ""), observations


def as_body(observations: Sequence[memoryview]) -> Generator[None, None, bytes | bytearray]:
    """Return the body of an observe call, in short steps. Raises MalformedRequest if one cannot be read."""
    body = bytearray(b'{"observations":[')
    for index, each in enumerate(observations):
        parts = [
            b'"%b":%b' % (_AS_JSON.get(name, name).encode(), value.encode() if name in _AS_JSON else _json(value))
            for name, value in decode(_OBSERVATION, each).items()
        ]
        body += b"{%b}," % b",".join(parts)
        if index % _PER_STEP == _PER_STEP - 1:
            yield
    body[-1:] = b"]}"
    return body if len(body) > SHORT_TEXT_BYTES else bytes(body)


def as_response(answer: bytes, count: int) -> Generator[None, None, bytes]:
    """Return an observe call's answer as a message, in steps of a few milliseconds at most.

    Raises MalformedRequest if the answer has another number of results than observations, as some JSON in them causes.
    """
    outcomes = msgspec.json.decode(answer)["observations"]
    if len(outcomes) != count:
        raise MalformedRequest("input_json or label_json is not the JSON of one value")
    parts = []
    for index, outcome in enumerate(outcomes):
        told = {name: outcome.get(name) for name in ("duplicate", "error", "cause")}
        parts.append(encode(_RESPONSE, {"observed": [told]}))
        if index % _PER_STEP == _PER_STEP - 1:
            yield
    return b"".join(parts)


_json = msgspec.json.encode
