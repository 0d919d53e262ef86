"""One call, between the session that it came by and the method that answers it."""

from collections.abc import Collection
from typing import Protocol

from clipper.errors import ClipperError
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.http.heads import Headers
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.framing import ANSWER_HEAD, OK_TRAILERS, CallHead, Message, MessageReader
from clipper.worker.frontend.rpc.statuses import Refused, refusal, trailers_of

# Pieces of a message.
Rest = Collection[bytes | memoryview]


class Behaviour(Protocol):
    """Handles what the client of a call sends.

    The first three may raise ClipperError or Refused, with which the call then ends.

    Attributes:
        is_busy: whether further messages should wait in the client.
        may_be_quiet: whether the client may wait for as long as it likes before a message, and before its end.
    """

    may_be_quiet: bool

    @property
    def is_busy(self) -> bool: ...

    @property
    def held_bytes(self) -> int:
        """Size of complete messages that were not asked about yet."""

    def take(self, message: Message) -> None:
        """A message has come."""

    def end(self) -> None:
        """The client has sent its last message."""

    def look(self) -> None:
        """Called once a second."""

    def resume(self) -> None:
        """The client has read answers that it was behind with."""

    def stop(self) -> None:
        """The worker drains: end what would go on for ever, once what is under way is answered."""

    def leave(self) -> None:
        """The call has ended, by an answer or without one. Cancel what is under way."""


class Sender(Protocol):
    """A session, as its streams see it.

    Attributes:
        arrived_s: when the input that it is taking in was read.
        client: the client's address; empty if nobody asks for it.
        streams: its open calls by number.
    """

    arrived_s: float
    client: str
    streams: "dict[int, Stream]"

    def send(self, stream: "Stream", message: bytes | None, trailers: Headers | None, rest: Rest = ()) -> None:
        """Send a part of an answer: its head if that is due, a message, or the trailers that end it. ``rest``: the rest
        of a long message, in pieces. Raises Overloaded if there is no room for the message."""

    def refuse(self, stream: "Stream", trailers: Headers) -> None:
        """Answer with nothing but the trailers of an error."""

    def is_behind(self, stream: "Stream") -> bool: ...

    def resume(self, number: int, size_bytes: int) -> None:
        """Let the client send as much again."""

    def count_refused(self, code: str) -> None: ...


class Stream:
    """One call.

    Attributes:
        began_s: when its head was read, on the loop's clock.
        deadline_s: by when the client wants its answer, on that clock; None if at any time.
        is_open: whether it has no final answer yet.
        behaviour: what its method does; None before it is known, and once the call has ended.
        has_ended: whether the client has sent its last message.
        has_head: whether the answer's head was sent.
        waits_since_sweep: since when a message is incomplete; None if there is none.
        withheld_bytes: received, and not acknowledged to the client.
    """

    __slots__ = (
        "_session",
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
        "waits_since_sweep",
        "withheld_bytes",
    )

    def __init__(self, session: Sender, budget: Budget, number: int, head: CallHead, sweep: int) -> None:
        self._session = session
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
        """Have the answer's head say the request's id, unless it was sent."""
        self.answer_head = [*ANSWER_HEAD, (b"x-request-id", request_id.encode())]

    @property
    def client(self) -> str:
        """The client's address; empty if nobody asks for it."""
        return self._session.client

    @property
    def arrived_s(self) -> float:
        """The time at which the present input was read."""
        return self._session.arrived_s

    @property
    def is_arriving(self) -> bool:
        """Whether a message of it is incomplete."""
        return self.waits_since_sweep is not None

    @property
    def arriving_bytes(self) -> int:
        """Size of what has come and was not asked about: before the end of a message, or more than is due at once."""
        if self.behaviour is None:
            return 0
        held_bytes = self.reader.held_bytes + self.behaviour.held_bytes
        return held_bytes if self.is_arriving or held_bytes >= bounds.LARGE_STREAM_BYTES else 0

    @property
    def open_calls(self) -> int:
        """The number of open calls of its connection."""
        return len(self._session.streams)

    @property
    def is_behind(self) -> bool:
        """Whether a client should read answers before more are made. If so, ``Behaviour.resume`` says when it has."""
        return self._session.is_behind(self)

    def send(self, message: bytes, rest: Rest = ()) -> None:
        """Send a message of several; ``rest`` is the rest of a long one, in pieces. Raises Overloaded if there is no
        room for it."""
        if self.is_open:
            self._session.send(self, message, None, rest)

    def finish(self, message: bytes | None = None, rest: Rest = ()) -> None:
        """End the call well, with a last message if there is one; ``rest`` as for ``send``. Raises Overloaded if there
        is no room for it."""
        if self.is_open:
            self._session.send(self, message, OK_TRAILERS, rest)

    def refuse(self, refused: Refused) -> None:
        """End the call with an error."""
        if not self.is_open:
            return
        if self.has_head:
            self._session.send(self, None, trailers_of(refused))
        else:
            self._session.refuse(self, trailers_of(refused))

    def fail(self, error: ClipperError | Refused) -> None:
        """End the call with an error; an error of Clipper's is counted."""
        if isinstance(error, ClipperError):
            self._session.count_refused(error.code)
            error = refusal(error)
        self.refuse(error)

    def resume(self) -> None:
        """Let the client send what was withheld."""
        withheld_bytes, self.withheld_bytes = self.withheld_bytes, 0
        if withheld_bytes:
            self._session.resume(self.number, withheld_bytes)
