"""The behaviour of a call with a single message: the message has one answer, or begins a watch."""

from clipper.errors import ClipperError, MalformedRequest, Overloaded, Unavailable
from clipper.worker.frontend.budget import NO_ROOM, Budget
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.calls import Call, Caller
from clipper.worker.frontend.rpc.framing import Message
from clipper.worker.frontend.rpc.service import WATCH, Services, Unary
from clipper.worker.frontend.rpc.statuses import Refused
from clipper.worker.frontend.rpc.stream import Rest, Stream
from clipper.worker.frontend.rpc.wire import decode, encode

# The error that ends a stream while the worker drains.
STOPPING = Unavailable("the worker is stopping: ask again")


class Counts:
    """
    Attributes:
        calls: the number of calls that have come.
        in_flight: the number of messages that have come, or are coming, and are not answered.
        open: the number of calls that have not ended.
        streaming: the number of open calls that are streams.
        arriving: the calls whose single message is not there yet, the oldest first.
    """

    def __init__(self) -> None:
        self.calls = self.in_flight = self.open = self.streaming = 0
        self.arriving: dict[Single, None] = {}


class Shared:
    """The common state of a gRPC port's calls. ``services`` are those of the latest snapshot."""

    services: Services

    def __init__(self, port: Port) -> None:
        self.port = port
        self.counts = Counts()


class Single:
    """A call whose client sends one message. The message counts against the budget until the client's end has come."""

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
        """End the call, if its message is slow or its connection has more than its share; return whether it did."""
        is_slow = self._shared.port.sweeps - self._began_sweep >= bounds.SLOW_MESSAGE_SWEEPS
        if not is_slow and len(self._stream.session.streams) <= share:
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
    """A call with a message and an answer."""

    def __init__(self, stream: Stream, shared: Shared) -> None:
        super().__init__(stream, shared)
        self._call: Call | None = None
        shared.counts.in_flight += 1

    def end(self) -> None:
        # Services and keys may have changed while the message came.
        method = self._shared.services.unary[self._stream.head.path]
        self._call = start(self._stream, self, self._taken(), self._shared, method, self._stream.session.arrived_s)

    def look(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None: ...

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
    """A call that tells a service's health now, and whenever it changes."""

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

    def stop(self) -> None:
        self._stream.fail(STOPPING)

    def leave(self) -> None:
        super().leave()
        self._shared.counts.streaming -= 1


def hold(budget: Budget, size_bytes: int) -> None:
    """Count a message that waits. Raises Overloaded if there is no room for the message. It is counted nevertheless."""
    budget.held_bytes += size_bytes
    if not budget.has_room(0):
        raise Overloaded(NO_ROOM)


def start(stream: Stream, caller: Caller, message: Message, shared: Shared, method: Unary, arrived_s: float) -> Call:
    """Have a method answer a message. Raises MalformedRequest if nothing says how it is compressed."""
    port, head = shared.port, stream.head
    note = None
    if head.varying or port.watch is not None:
        note = port.note(arrived_s, head.varying, "POST", head.path.encode("latin-1"), stream.session.client)
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
