"""The body of an observe call: one piece of feedback, or several."""

import msgspec
from msgspec import Raw, Struct, UnsetType

from clipper.errors import ClipperError, MalformedRequest
from clipper.feedback import Feedback
from clipper.frontend.inputs import Reader
from clipper.frontend.predict_body import read_context
from clipper.selection.feedback.scoring import feedback_id

# One call's feedback goes into one or two transactions; more would make others wait.
MAX_OBSERVATIONS = 10_000
# The store keeps them for a while.
MAX_ID_LENGTH = 200

_EXPECTED = 'expected {"query_id": …, "label": …} or {"input": …, "label": …}, or these in {"observations": […]}'


class ObserveBody(Struct, frozen=True):
    """``uid`` is the old system's name of ``context``. ``id`` names the feedback, if its sender knows better."""

    query_id: int | None = None
    input: Raw | UnsetType = msgspec.UNSET
    context: str | int | None = None
    uid: str | int | None = None
    label: Raw | UnsetType = msgspec.UNSET
    reward: float | None = None
    id: str | None = None


class Observations(Struct, frozen=True):
    observations: list[Raw] | UnsetType = msgspec.UNSET


class ObserveReader:
    """Reads the bodies of one application's observe calls."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._decode_one = msgspec.json.Decoder(ObserveBody).decode
        self._decode_many = msgspec.json.Decoder(Observations).decode

    def read(self, body: bytes) -> tuple[list[Feedback | ClipperError], bool]:
        """Return the feedback, with an error in place of each piece that is wrong, and whether it was a list.

        Raises:
            MalformedRequest: the body as a whole is no observe call.
        """
        try:
            many = self._decode_many(body).observations
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MalformedRequest(f"body is not an observe call: {error}; {_EXPECTED}") from error
        if isinstance(many, UnsetType):
            return [self._read_one(body)], False
        if not 1 <= len(many) <= MAX_OBSERVATIONS:
            raise MalformedRequest(f"observations has {len(many)} items: expected 1 to {MAX_OBSERVATIONS}")
        return [self._read_one(bytes(text)) for text in many], True

    def _read_one(self, text: bytes) -> Feedback | ClipperError:
        try:
            return self._feedback(self._decode_one(text))
        except ClipperError as error:
            return error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return MalformedRequest(f"not an observation: {error}; {_EXPECTED}")

    def _feedback(self, body: ObserveBody) -> Feedback:
        label = None if isinstance(body.label, UnsetType) else bytes(body.label)
        if (label is None) == (body.reward is None):
            raise MalformedRequest(f"an observation has either a label or a reward; {_EXPECTED}")
        if (body.query_id is None) == isinstance(body.input, UnsetType):
            raise MalformedRequest(f"an observation is on either a query_id or an input; {_EXPECTED}")
        if body.query_id is None and body.reward is not None:
            raise MalformedRequest("a reward is for what a query selected: expected its query_id")
        if label is not None:
            label.decode()  # the decoder lets any bytes within a text pass
        if body.id is not None and len(body.id) > MAX_ID_LENGTH:
            raise MalformedRequest(f"id has {len(body.id)} characters: expected at most {MAX_ID_LENGTH}")
        context = read_context(body.context, body.uid)
        row = b"" if isinstance(body.input, UnsetType) else self._reader.read(bytes(body.input))
        return Feedback(
            id=body.id or feedback_id(body.query_id, row, context, label or b""),
            query_id=body.query_id,
            row=row if body.query_id is None else None,
            context=context,
            label=label,
            reward=body.reward,
        )
