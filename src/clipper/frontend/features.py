"""The features that come with a query for its policy: from JSON to the raw buffer that it is given."""

import struct
from collections.abc import Sequence

import msgspec
from msgspec import Raw, UnsetType

from clipper.errors import MalformedRequest, WrongInput
from clipper.inputs.numbers import show

# 64 numbers, however they are written, with room between.
MAX_FEATURES_BYTES = 16 * 1024

_decode = msgspec.json.Decoder(list[float]).decode
_decode_many = msgspec.json.Decoder(list[Raw]).decode


class FeaturesReader:
    """Reads the features of one application's queries.

    Args:
        size: how many each query brings; None if it brings none.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        self._pack = struct.Struct(f"<{size or 0}d").pack

    def read(self, text: bytes | Raw | UnsetType) -> bytes | None:
        """The raw buffer, of little-endian float64; None where the application takes none.

        Args:
            text: JSON text; unset if there was none.

        Raises:
            WrongInput: they are not what the application takes; the message says what that is.
        """
        if isinstance(text, UnsetType):
            if self.size is None:
                return None
            raise WrongInput(f'the query has no features: expected {self._expected} in "features"')
        if self.size is None:
            raise WrongInput(
                "the query has features, and its application does not take them: leave them out, or have it take "
                "them by `clipper app update NAME --features N`"
            )
        try:
            # What is too large for a double is an error of the decoder, and JSON has no NaN.
            numbers = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise WrongInput(f"features are {_shown(text)}: expected {self._expected}: {error}") from error
        if len(numbers) != self.size:
            raise WrongInput(f"features are a list of {len(numbers)}: expected {self._expected}")
        return self._pack(*numbers)

    def read_all(self, text: Raw | UnsetType, count: int) -> Sequence[bytes | None]:
        """The same of a batch: a list of as many lists as there are inputs."""
        if isinstance(text, UnsetType) or self.size is None:
            return [self.read(text)] * count
        try:
            each = _decode_many(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise WrongInput(f"features are {_shown(text)}: expected a list for each of {count} inputs") from error
        check_count(len(each), count)
        return [self.read(one) for one in each]

    @property
    def _expected(self) -> str:
        return f"a list of {self.size} number{'' if self.size == 1 else 's'}"


def check_count(found: int | None, count: int) -> None:
    """
    Args:
        found: how many features there are for ``count`` inputs; None is more than any batch may have.

    Raises:
        WrongInput: there are not as many.
    """
    if found != count:
        shown = "too many" if found is None else found
        raise WrongInput(f"features of {shown} inputs came with {count}: expected a list for each")


def _shown(text: bytes | Raw) -> str:
    try:
        return show(msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "not JSON"


def features_text(body: bytearray, start: int, stop: int) -> bytes:
    """One query's, of a large body.

    Raises:
        MalformedRequest: it is longer than they can be.
    """
    if stop - start > MAX_FEATURES_BYTES:
        raise MalformedRequest(f"features take {stop - start} bytes: expected at most {MAX_FEATURES_BYTES}")
    return bytes(body[start:stop])
