"""The body of an observe call: an observation or several."""

import re
from collections.abc import Generator

import msgspec
from msgspec import Raw, Struct, UnsetType

from clipper.control.feedback import Feedback
from clipper.errors import ClipperError, MalformedRequest
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.json_parts import Extent, find_fields, find_items
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.values.inputs.reader import Reader
from clipper.worker.frontend.features import FeaturesReader
from clipper.worker.frontend.predict_body import MAX_FIELD_BYTES, compose, read_context, read_input

# The feedback of a call takes one or two transactions. More would make others wait.
MAX_OBSERVATIONS = 10_000
# The shortest observation is {"query_id":1,"label":1}.
MIN_OBSERVATION_BYTES = 24
# The store keeps ids for a while.
MAX_ID_LENGTH = 200
# Senders' ids that look like that of a query get another ``given-``, so that two different ids never become equal.
_LIKE_A_QUERYS = re.compile("(given-)*query--?[0-9]+")
# The size of a list of the probabilities of thousands of classes. A label is parsed once for each model.
MAX_LABEL_BYTES = 64 * 1024

_EXPECTED = 'expected {"query_id": …, "label": …} or {"input": …, "label": …}, or these in {"observations": […]}'


class ObserveBody(Struct, frozen=True):
    """An observation, on a pipeline's ``step`` if any; ``id`` names it; ``uid`` is the old name of ``context``."""

    query_id: int | None = None
    input: Raw | UnsetType = msgspec.UNSET
    context: str | int | None = None
    uid: str | int | None = None
    label: Raw | UnsetType = msgspec.UNSET
    reward: float | None = None
    id: str | None = None
    features: Raw | UnsetType = msgspec.UNSET
    step: str | None = None


# Bounds of the fields other than the input, as JSON text.
_MOST_BYTES = {
    name: MAX_LABEL_BYTES if name == "label" else MAX_FIELD_BYTES
    for name in ObserveBody.__struct_fields__
    if name != "input"
}


class Observations(Struct, frozen=True):
    observations: list[Raw] | UnsetType = msgspec.UNSET


class ObserveReader:
    """Reads the bodies of an application's observe calls; for ``features_size`` see ``BodyReader``."""

    def __init__(self, reader: Reader, features_size: int | None = None) -> None:
        self._reader = reader
        self._features = FeaturesReader(features_size)
        self._decode_one = msgspec.json.Decoder(ObserveBody).decode
        self._decode_many = msgspec.json.Decoder(Observations).decode

    def read_single(self, body: bytes) -> Feedback | ClipperError | None:
        """Read one observation, at once; None if it is a list. Raises MalformedRequest for other bodies."""
        return self._read_one(body) if isinstance(self._parse(body), UnsetType) else None

    def read(self, body: bytes | bytearray) -> Generator[None, None, tuple[list[Feedback | ClipperError], bool]]:
        """Read a body of any form and size, in steps of a few milliseconds at most.

        Returns:
            The feedback, with an error in place of each observation that is not valid, and whether it was a list.

        Raises MalformedRequest if the body as a whole is not an observe call.
        """
        if len(body) > SHORT_TEXT_BYTES:
            return (yield from self._read_parts(body if isinstance(body, bytearray) else bytearray(body)))
        many = self._parse(bytes(body))
        if isinstance(many, UnsetType):
            return [self._read_one(bytes(body))], False
        _check_count(len(many))
        found: list[Feedback | ClipperError] = []
        for text in many:
            found.append(self._read_one(bytes(text)))
            yield
        return found, True

    def _read_parts(self, body: bytearray) -> Generator[None, None, tuple[list[Feedback | ClipperError], bool]]:
        fields = yield from find_fields(body, 0, len(body))
        if "observations" not in fields:
            return [(yield from self._read_large(body, fields))], False
        extents = yield from find_items(body, *fields["observations"], MAX_OBSERVATIONS)
        _check_count(None if extents is None else len(extents))
        found: list[Feedback | ClipperError] = []
        for start, stop in extents or ():
            if stop - start <= SHORT_TEXT_BYTES:
                found.append(self._read_one(bytes(body[start:stop])))
            else:
                found.append((yield from self._read_large(body, (yield from find_fields(body, start, stop)))))
            yield
        return found, True

    def _read_large(self, text: bytearray, fields: dict[str, Extent]) -> Generator[None, None, Feedback | ClipperError]:
        """Read an observation, most of which is its input."""
        extent = fields.get("input")
        try:
            body = self._decode_one(compose(text, fields, _MOST_BYTES))
            label = _checked_label(body, extent is not None)
            row = b"" if extent is None else (yield from read_input(self._reader, text, *extent))
            return self._feedback(body, row, label)
        except (ClipperError, *NOT_JSON) as error:
            return _as_value(error)

    def _feedback(self, body: ObserveBody, row: bytes, label: bytes | None) -> Feedback:
        context, query_id, features = read_context(body.context, body.uid), body.query_id, None
        if query_id is None:
            features = self._features.read(body.features)
            if body.step is not None:
                raise MalformedRequest(
                    "step goes with a query_id: send feedback on an input to the step's own application"
                )
        elif not isinstance(body.features, UnsetType):
            raise MalformedRequest(
                "features are only for feedback on an input, and feedback on a query_id uses those of the query: "
                "leave them out"
            )
        name, row_of_input = feedback_id(body.id, query_id), row if query_id is None else None
        return Feedback(name, query_id, row_of_input, context, label, body.reward, features, body.step)

    def _parse(self, body: bytes) -> list[Raw] | UnsetType:
        try:
            return self._decode_many(body).observations
        except NOT_JSON as error:
            raise MalformedRequest(f"body is not an observe call: {error}: {_EXPECTED}") from error

    def _read_one(self, text: bytes) -> Feedback | ClipperError:
        try:
            body = self._decode_one(text)
            label = _checked_label(body, not isinstance(body.input, UnsetType))
            row = b"" if isinstance(body.input, UnsetType) else self._reader.read(bytes(body.input))
            return self._feedback(body, row, label)
        except (ClipperError, *NOT_JSON) as error:
            return _as_value(error)


def _as_value(error: Exception) -> ClipperError:
    """Drop the traceback and causes: their frames keep the error, a cycle that only the collector frees."""
    if not isinstance(error, ClipperError):
        return MalformedRequest(f"this is not an observation: {error}: {_EXPECTED}")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _checked_label(body: ObserveBody, has_input: bool) -> bytes | None:
    label = None if isinstance(body.label, UnsetType) else bytes(body.label)
    if (label is None) == (body.reward is None):
        raise MalformedRequest(f"an observation has either a label or a reward: {_EXPECTED}")
    if (body.query_id is None) != has_input:
        raise MalformedRequest(f"an observation has either a query_id or an input: {_EXPECTED}")
    if body.query_id is None and body.reward is not None:
        raise MalformedRequest("a reward is for the answer to a query: expected the query_id that came with the answer")
    if label is not None:
        label.decode()  # msgspec lets any bytes inside a string pass
    return label


def feedback_id(given: str | None, query_id: int | None) -> str:
    """Return the feedback's id: the id that its sender gave, or else that of its query.

    A query has one outcome. Feedback on an input without an id has none, since the same thing may well happen twice. A
    sender's id for other feedback never is the id of a query: otherwise the query's own feedback would not count. Ids
    of any other form are left alone, so that they equal stored ids.

    Raises MalformedRequest if the given id is too long.
    """
    if given is not None and len(given) > MAX_ID_LENGTH:
        raise MalformedRequest(f"id has {len(given)} characters: expected at most {MAX_ID_LENGTH}")
    of_query = "" if query_id is None else f"query-{query_id}"
    if not given or given == of_query:
        return of_query
    return f"given-{given}" if _LIKE_A_QUERYS.fullmatch(given) else given


def _check_count(count: int | None) -> None:
    """Check the number of observations; None means that it is over the bound."""
    if count is None or not 1 <= count <= MAX_OBSERVATIONS:
        items = f"over {MAX_OBSERVATIONS}" if count is None else count
        raise MalformedRequest(f"observations has {items} items: expected 1 to {MAX_OBSERVATIONS}")
