"""``Observe``: messages to the JSON that the query port's observe call takes, and its answer back."""

from collections.abc import Generator, Sequence

import msgspec

from clipper.errors import MalformedRequest
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend.observe_body import MAX_OBSERVATIONS
from clipper.worker.frontend.rpc.protocols import CLIPPER
from clipper.worker.frontend.rpc.wire import decode, encode, split

_REQUEST, _RESPONSE = CLIPPER.message("ObserveRequest"), CLIPPER.message("ObserveResponse")
_OBSERVATION = CLIPPER.message("Observation")
# What takes a few milliseconds.
_PER_STEP = 200
# By the message's names, where JSON's differ.
_AS_JSON = {"input_json": "input", "label_json": "label"}


def split_request(message: memoryview) -> tuple[str, list[memoryview]]:
    """The application's name, and each observation. Raises MalformedRequest if it is none, or has too many."""
    found = split(_REQUEST, message, MAX_OBSERVATIONS + 1)
    observations = found.get("observations", [])
    if not 1 <= len(observations) <= MAX_OBSERVATIONS:
        raise MalformedRequest(f"request has {len(observations)} observations: expected 1 to {MAX_OBSERVATIONS}")
    return found.get("model_name", ""), observations


def as_body(observations: Sequence[memoryview]) -> Generator[None, None, bytes | bytearray]:
    """Return the body of an observe call, in steps of a few milliseconds at most. Raises MalformedRequest if one is no
    observation."""
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
    """Return the message that an observe call's answer is, in steps as above. Raises MalformedRequest if the JSON of
    observations was such that it has not one for each."""
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
