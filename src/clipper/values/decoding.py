"""Decodes JSON that a client or a model has sent."""

from typing import Any

import msgspec

from clipper.errors import MalformedRequest

# Decoding raises one of these: the text is no JSON, not of the expected type, not UTF-8, or nested too deeply.
NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)

_decode = msgspec.json.Decoder().decode


def parsed(text: bytes | bytearray, what: str = "input") -> Any:
    """Return the value of JSON. Raises MalformedRequest."""
    try:
        return _decode(text)
    except NOT_JSON as error:
        raise MalformedRequest(f"{what} is not JSON: {error}") from error
