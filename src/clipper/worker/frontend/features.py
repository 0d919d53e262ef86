"""The features that a query brings for its policy: from JSON to the raw buffer that the policy gets."""

import struct
from collections.abc import Sequence

import msgspec
from msgspec import Raw, UnsetType

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.numbers import show

# 64 numbers in any notation, with whitespace.
MAX_FEATURES_BYTES = 16 * 1024

_decode = msgspec.json.Decoder(list[float]).decode
_decode_many = msgspec.json.Decoder(list[Raw]).decode


class FeaturesReader:
    """Reads the features of queries: ``size`` numbers for each; None if the application takes none."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self._pack = struct.Struct(f"<{size or 0}d").pack

    def read(self, text: bytes | Raw | UnsetType) -> bytes | None:
        """Return the raw buffer of little-endian float64; None if the application takes no features. ``text``: JSON
        text; unset if the query brought none. Raises WrongInput if the application takes other features, or none; the
        message says what it takes.
        """
        if isinstance(text, UnsetType):
            if self.size is None:
                return None
            raise WrongInput(f'the query has no features: expected {self._expected} in "features"')
        if self.size is None:
            raise WrongInput(
                "the query has features, but its application takes none: leave them out, or enable them with "
                "`clipper app update NAME --features N`"
            )
        try:
            # The decoder refuses numbers that are too large for a double, and JSON has no NaN.
            numbers = _decode(text)
        except NOT_JSON as error:
            raise WrongInput(f"features are {_shown(text)}: expected {self._expected}: {error}") from error
        if len(numbers) != self.size:
            raise WrongInput(f"features are a list of {len(numbers)}: expected {self._expected}")
        return self._pack(*numbers)

    def read_all(self, text: Raw | UnsetType, count: int) -> Sequence[bytes | None]:
        """Read the features of a batch: a list with a list for each input."""
        if isinstance(text, UnsetType) or self.size is None:
            return [self.read(text)] * count
        try:
            each = _decode_many(text)
        except NOT_JSON as error:
            raise WrongInput(f"features are {_shown(text)}: expected a list for each of {count} inputs") from error
        check_count(len(each), count)
        return [self.read(one) for one in each]

    @property
    def _expected(self) -> str:
        return f"a list of {self.size} number{'' if self.size == 1 else 's'}"


def check_count(found: int | None, count: int) -> None:
    """Check that there are as many lists of features as inputs. Raises WrongInput if the numbers differ.

    ``found`` is the number of lists; None if there are more than any batch may have.
    """
    if found != count:
        shown = "too many" if found is None else found
        raise WrongInput(f"features has {shown} lists for {count} inputs: expected one list for each input")


def _shown(text: bytes | Raw) -> str:
    try:
        return show(msgspec.json.decode(text))
    except NOT_JSON:
        return "not JSON"


def features_text(body: bytearray, start: int, stop: int) -> bytes:
    """Return the features of a query in a large body. Raises MalformedRequest if the text is too long for features."""
    if stop - start > MAX_FEATURES_BYTES:
        raise MalformedRequest(f"features take {stop - start} bytes: expected at most {MAX_FEATURES_BYTES}")
    return bytes(body[start:stop])
