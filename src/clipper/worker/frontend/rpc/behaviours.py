"""What becomes of the messages of a call, by its kind: one message and its answer, a stream of them, or a watch."""

from collections import deque
from typing import Protocol

from clipper.base.turn_budget import Backlog
from clipper.errors import ClipperError, MalformedRequest, Overloaded
from clipper.worker.frontend.budget import NO_ROOM, Budget
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.calls import Call, Caller
from clipper.worker.frontend.rpc.framing import Message
from clipper.worker.frontend.rpc.service import METHODS, WATCH, Services, Unary
from clipper.worker.frontend.rpc.statuses import Refused
from clipper.worker.frontend.rpc.stream import Rest, Stream
from clipper.worker.frontend.rpc.wire import decode, delimited, delimited_head, encode

STREAM_INFER = METHODS["ModelStreamInfer"].path


class Counts:
    """
    Attributes:
        calls: how many have come.
        in_flight: how many messages have come, or are coming, that are not answered.
        open: calls that have not ended.
        streaming: those of them that are streams.
        arriving: those of one message that is not there yet, the oldest first.
    """

    def __init__(self) -> None:
        self.calls = self.in_flight = self.open = self.streaming = 0
        self.arriving: dict[Single, None] = {}


class Shared(Protocol):
    """What the calls of a gRPC port share. ``services`` are those of the latest snapshot."""

    port: Port
    services: Services
    counts: Counts


class Single:
    """A call whose client sends one message. The message counts against the budget until its end has come, too."""

    is_busy = may_be_quiet = False

    def __init__(self, stream: Stream, shared: Shared) -> None:
        self._stream = stream
        self._shared = shared
        self._message: Message | None = None
        self._began_sweep = shared.port.sweeps
        shared.counts.open += 1
        shared.counts.arriving[self] = None

    @property
    def held_bytes(self) -> int:
        return 0 if self._message is None else len(self._message.data)

    def take(self, message: Message) -> None:
        if self._message is not None:
            raise MalformedRequest("the call has more than one message: expected one")
        self._message = message
        hold(self._shared.port.budget, len(message.data))

    def _taken(self) -> Message:
        message = self._message
        if message is None:
            raise MalformedRequest("the call has no message: expected one")
        self._drop()
        return message

    def make_room(self, share: int) -> bool:
        """End a call whose message has been on its way for a while, or whose connection has more than its share of the
        open calls; return whether it ended."""
        is_slow = self._shared.port.sweeps - self._began_sweep >= bounds.SLOW_MESSAGE_SWEEPS
        if not is_slow and self._stream.open_calls <= share:
            return False
        self._stream.fail(Overloaded("too many calls are open, and this one's message is slow: try again in a moment"))
        return True

    def _drop(self) -> None:
        self._shared.counts.arriving.pop(self, None)
        self._shared.port.budget.held_bytes -= self.held_bytes
        self._message = None

    def leave(self) -> None:
        self._shared.counts.open -= 1
        self._drop()


class UnaryCall(Single):
    """A call of one message, which has one answer."""

    def __init__(self, stream: Stream, shared: Shared) -> None:
        super().__init__(stream, shared)
        self._call: Call | None = None
        shared.counts.in_flight += 1

    def end(self) -> None:
        # What is served may have changed while the message came, and so may keys.
        method = self._shared.services.unary[self._stream.head.path]
        self._call = start(self._stream, self, self._taken(), self._shared, method, self._stream.arrived_s)

    def look(self) -> None: ...

    def resume(self) -> None: ...

    def leave(self) -> None:
        super().leave()
        self._shared.counts.in_flight -= 1
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def on_answer(self, message: bytes, rest: Rest = ()) -> None:
        try:
            self._stream.finish(message, rest)
        except Overloaded as error:
            self._stream.fail(error)

    def on_refusal(self, refused: Refused) -> None:
        self._stream.refuse(refused)


class Watch(Single):
    """Tells a service's health, and whenever it changes."""

    def __init__(self, stream: Stream, shared: Shared) -> None:
        super().__init__(stream, shared)
        self._service: str | None = None
        self._told = ""
        shared.counts.streaming += 1

    def end(self) -> None:
        self._service = decode(WATCH.request, memoryview(self._taken().data)).get("service", "")
        self.look()

    def look(self) -> None:
        if self._service is None:
            return
        try:
            status = self._shared.services.health(self._service)
        except ClipperError:
            status = "SERVICE_UNKNOWN"
        if status != self._told and not self._stream.is_behind:
            self._told = status
            self._stream.send(encode(WATCH.reply, {"status": status}))

    def resume(self) -> None:
        self.look()

    def leave(self) -> None:
        super().leave()
        self._shared.counts.streaming -= 1


class Conversation:
    """A stream of messages, each of which is answered before the next one is asked.

    Messages are asked at once while the turn has time. Without this bound, a stream that is answered would have all
    that wait asked at once, up to the first that is not refused.
    """

    may_be_quiet = True

    def __init__(self, stream: Stream, shared: Shared, later: "Backlog[Conversation]") -> None:
        """``later``: those of one connection whose next message waits for a turn."""
        self._stream = stream
        self._shared = shared
        self._later = later
        # Of ModelStreamInfer an error is an answer. Of others it ends the stream.
        self._is_infer = stream.head.path == STREAM_INFER
        self._waiting: deque[Message] = deque()
        self.held_bytes = 0
        self._call: Call | None = None
        self._is_asking = self._is_answering = self._is_due = self._has_left = False
        shared.counts.open += 1
        shared.counts.streaming += 1

    @property
    def is_busy(self) -> bool:
        return self._is_answering or bool(self._waiting)

    def take(self, message: Message) -> None:
        self._waiting.append(message)
        size_bytes = len(message.data) + bounds.MESSAGE_HELD_BYTES
        self.held_bytes += size_bytes
        hold(self._shared.port.budget, size_bytes)
        if self.held_bytes > bounds.MAX_STREAM_HELD_BYTES:
            raise Overloaded("too many messages of this stream wait for their answers: send fewer at once")
        self._ask()

    def end(self) -> None:
        self._ask()

    def look(self) -> None: ...

    def resume(self) -> None:
        self._ask()

    def leave(self) -> None:
        self._has_left = True
        self._shared.counts.open -= 1
        self._shared.counts.streaming -= 1
        self._waiting.clear()
        self._shared.port.budget.held_bytes -= self.held_bytes
        self.held_bytes = 0
        call = self._call
        if self._is_answering:
            self._answered()
        if call is not None:
            call.cancel()

    def on_answer(self, message: bytes, rest: Rest = ()) -> None:
        self._answered()
        size_bytes = len(message) + sum(map(len, rest))
        self._send(delimited_head(2, size_bytes) + message if self._is_infer else message, rest)

    def on_refusal(self, refused: Refused) -> None:
        self._answered()
        if self._is_infer:
            self._send(delimited(1, str(refused).encode()))
        else:
            self._stream.refuse(refused)

    def _send(self, message: bytes, rest: Rest = ()) -> None:
        try:
            self._stream.send(message, rest)
        except Overloaded as error:
            self._stream.fail(error)
        else:
            self._ask()

    def _ask(self) -> None:
        """Go on with the next message, if there is one and the client has read the answers to those before it."""
        if self._is_asking or self._is_due:
            return
        turn = self._shared.port.turn
        self._is_asking = True
        while self._may_ask and turn.is_open(turn.now_s()):
            self._ask_next()
        self._is_asking = False
        self._is_due = self._may_ask
        if self._is_due:
            self._later.add(self)
        else:
            self._look_at_end()

    def go_on(self, end_s: float) -> bool:
        """Ask about one message that has waited for a turn; return whether no other one waits for one."""
        self._is_asking = True
        if self._may_ask:
            self._ask_next()
        self._is_asking = False
        self._is_due = self._may_ask
        if not self._is_due:
            self._look_at_end()
        return not self._is_due

    def _look_at_end(self) -> None:
        if not self._has_left and not self.is_busy:
            self._stream.resume()
            if self._stream.has_ended:
                self._stream.finish()

    @property
    def _may_ask(self) -> bool:
        return bool(self._waiting) and not (self._is_answering or self._has_left or self._stream.is_behind)

    def _ask_next(self) -> None:
        message = self._waiting.popleft()
        size_bytes = len(message.data) + bounds.MESSAGE_HELD_BYTES
        self.held_bytes -= size_bytes
        self._shared.port.budget.held_bytes -= size_bytes
        self._shared.counts.in_flight += 1
        self._is_answering = True
        services = self._shared.services
        try:
            method = services.infer if self._is_infer else services.reflected
            call = start(self._stream, self, message, self._shared, method)
        except ClipperError as error:
            self._stream.fail(error)
        else:
            self._call = call if self._is_answering else None

    def _answered(self) -> None:
        self._call = None
        self._is_answering = False
        self._shared.counts.in_flight -= 1


def hold(budget: Budget, size_bytes: int) -> None:
    """Count a message that waits.

    Raises:
        Overloaded: there is no room for it. It is counted nevertheless.
    """
    budget.held_bytes += size_bytes
    if not budget.has_room(0):
        raise Overloaded(NO_ROOM)


def start(
    stream: Stream,
    caller: Caller,
    message: Message,
    shared: Shared,
    method: Unary,
    arrived_s: float | None = None,
) -> Call:
    """Have a method answer a message, now or later. ``arrived_s`` as in ``Call``. Raises MalformedRequest if the
    message is compressed, and the call's head does not say how."""
    port, head = shared.port, stream.head
    note = None
    if head.varying or port.watch is not None:
        read_s = port.now_s() if arrived_s is None else arrived_s
        note = port.note(read_s, head.varying, "POST", head.path.encode("latin-1"), stream.client)
        if note is not None and note.id:
            stream.name(note.id)
    call = Call(port, caller, message.data, head.authorizations, stream.deadline_s, arrived_s, note)
    encoding = head.encoding
    if message.is_compressed:
        if encoding == b"identity":
            raise MalformedRequest("a message is compressed: expected grpc-encoding to say how")
        call.run(lambda call: shared.services.inflated(call, encoding, method))
    else:
        call.run(method)
    return call
