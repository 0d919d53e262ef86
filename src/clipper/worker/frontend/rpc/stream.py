"""A call, between the session that it came by and the method that answers it."""

from collections import Counter
from collections.abc import Collection
from typing import Protocol

from clipper.errors import ClipperError
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.http.heads import Headers
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.framing import ANSWER_HEAD, OK_TRAILERS, CallHead, Message, MessageReader
from clipper.worker.frontend.rpc.statuses import Refused, refusal, trailers_of

# The further pieces of a message.
Rest = Collection[bytes | memoryview]


class Behaviour(Protocol):
    """Handles the messages of a call's client.

    ``take``, ``end`` and ``look`` may raise ClipperError or Refused, which then ends the call.

    Attributes:
        is_busy: whether further messages should wait in the client.
        may_be_quiet: whether the client may wait for as long as it likes before a message, and before its end.
    """

    may_be_quiet: bool

    @property
    def is_busy(self) -> bool: ...

    @property
    def held_bytes(self) -> int:
        """The size of complete messages that were not asked yet."""

    def take(self, message: Message) -> None:
        """Take a message that has come."""

    def end(self) -> None:
        """Note that the client has sent its last message."""

    def look(self) -> None:
        """Check what changes with time. Called once a second."""

    def resume(self) -> None:
        """Go on: the client has read the answers that it was behind with."""

    def stop(self) -> None:
        """End a call that would go on for ever, once its requests are answered: the worker drains."""

    def leave(self) -> None:
        """Cancel the requests under way: the call has ended, by an answer or without."""


class Sender(Protocol):
    """A session, from its streams' view.

    Attributes:
        arrived_s: when its present input was read.
        client: the client's address; empty if nobody asks for it.
        refused: the number of refused requests by error code.
        streams: its open calls by number.
    """

    arrived_s: float
    client: str
    refused: Counter[str]
    streams: "dict[int, Stream]"

    def send(self, stream: "Stream", message: bytes | None, trailers: Headers | None, rest: Rest = ()) -> None:
        """Send a part of an answer: its head if that is due, a message, or the trailers that end it.

        ``rest`` is the rest of a long message, in pieces. Raises Overloaded if there is no room for the message.
        """

    def refuse(self, stream: "Stream", trailers: Headers) -> None:
        """Answer with nothing but the trailers of an error."""

    def is_behind(self, stream: "Stream") -> bool: ...

    def resume(self, number: int, size_bytes: int) -> None:
        """Let the client send this much again."""


class Stream:
    """A call.

    Attributes:
        session: the session by which it came.
        began_s: when its head was read, on the loop's clock.
        deadline_s: the time by which the client wants its answer, on the same clock; None if it sets none.
        is_open: whether it has no final answer yet.
        behaviour: the behaviour of its method; None before that is known, and once the call has ended.
        has_ended: whether the client has sent its last message.
        has_head: whether the answer's head was sent.
        waits_since_sweep: since when a message is incomplete; None if there is none.
        withheld_bytes: the bytes that were received and not acknowledged to the client.
    """

    __slots__ = (
        "answer_head",
        "began_s",
        "behaviour",
        "deadline_s",
        "has_ended",
        "has_head",
        "head",
        "is_open",
        "number",
        "reader",
        "session",
        "waits_since_sweep",
        "withheld_bytes",
    )

    def __init__(self, session: Sender, budget: Budget, number: int, head: CallHead, sweep: int) -> None:
        self.session = session
        self.number = number
        self.head = head
        self.began_s = session.arrived_s
        self.deadline_s = None if head.timeout_s is None else session.arrived_s + head.timeout_s
        self.is_open = True
        self.behaviour: Behaviour | None = None
        self.reader = MessageReader(budget)
        self.has_ended = False
        self.waits_since_sweep: int | None = sweep
        self.withheld_bytes = 0
        self.has_head = False
        self.answer_head = ANSWER_HEAD

    def name(self, request_id: str) -> None:
        """Write the request's id into the answer's head, unless the head was sent."""
        self.answer_head = [*ANSWER_HEAD, (b"x-request-id", request_id.encode())]

    @property
    def is_arriving(self) -> bool:
        """Whether one of its messages is incomplete."""
        return self.waits_since_sweep is not None

    @property
    def arriving_bytes(self) -> int:
        """The size of input that was not asked yet: an incomplete message, or messages that are not due yet."""
        if self.behaviour is None:
            return 0
        held_bytes = self.reader.held_bytes + self.behaviour.held_bytes
        return held_bytes if self.is_arriving or held_bytes >= bounds.LARGE_STREAM_BYTES else 0

    @property
    def is_behind(self) -> bool:
        """Whether a client should read answers before more are made. ``Behaviour.resume`` is called once it has."""
        return self.session.is_behind(self)

    def send(self, message: bytes, rest: Rest = ()) -> None:
        """Send a message that is not the last, with its ``rest`` in pieces. Raises Overloaded without room."""
        if self.is_open:
            self.session.send(self, message, None, rest)

    def finish(self, message: bytes | None = None, rest: Rest = ()) -> None:
        """End the call without an error, maybe with a last message: see ``send``. Raises Overloaded without room."""
        if self.is_open:
            self.session.send(self, message, OK_TRAILERS, rest)

    def refuse(self, refused: Refused) -> None:
        """End the call with an error."""
        if not self.is_open:
            return
        if self.has_head:
            self.session.send(self, None, trailers_of(refused))
        else:
            self.session.refuse(self, trailers_of(refused))

    def fail(self, error: ClipperError | Refused) -> None:
        """End the call with an error, and count it if it is one of Clipper's."""
        if isinstance(error, ClipperError):
            self.session.refused[error.code] += 1
            error = refusal(error)
        self.refuse(error)

    def resume(self) -> None:
        """Acknowledge the withheld bytes, so that the client may send as much again."""
        withheld_bytes, self.withheld_bytes = self.withheld_bytes, 0
        if withheld_bytes:
            self.session.resume(self.number, withheld_bytes)
