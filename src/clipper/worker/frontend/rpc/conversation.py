"""Streams of messages: answers infer requests side by side, and requests of the reflection service one by one."""

from collections import defaultdict, deque

import msgspec

from clipper.base.turn_budget import Backlog
from clipper.errors import ClipperError, Overloaded
from clipper.worker.frontend import limits
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.answers import RESPONSE
from clipper.worker.frontend.rpc.behaviours import STOPPING, Shared, hold, start
from clipper.worker.frontend.rpc.calls import Call
from clipper.worker.frontend.rpc.framing import Message
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.requests import id_of
from clipper.worker.frontend.rpc.service import METHODS
from clipper.worker.frontend.rpc.statuses import Refused, refusal
from clipper.worker.frontend.rpc.stream import Rest, Stream
from clipper.worker.frontend.rpc.wire import delimited_head, encode

STREAM_INFER = METHODS["ModelStreamInfer"].path
_STREAM_RESPONSE = OPEN_INFERENCE.message("ModelStreamInferResponse")
_INFER_RESPONSE = next(field.number for field in _STREAM_RESPONSE.fields.values() if field.name == "infer_response")
# A request to a decoupled model of Triton may have several answers, and clients read until the final answer.
_FINAL = {"triton_final_response": {"bool_param": True}}
_FINAL_PART = encode(RESPONSE, {"parameters": _FINAL})


class Asked(msgspec.Struct, eq=False):
    """A stream's message that was asked and is not answered; the caller of its call.

    Attributes:
        id: the request's id; answers with the same id keep the order of their requests.
        call: the message's call; None while its method begins it.
        answer: the whole answer, in pieces, while it waits for the answers before it; None until it is there.
        held_bytes: its bytes in the budget, beside those of its call.
    """

    of: "Conversation"
    id: str
    held_bytes: int = limits.HELD_BYTES_PER_REQUEST
    call: Call | None = None
    answer: tuple[bytes, Rest] | None = None

    def on_answer(self, message: bytes, rest: Rest = ()) -> None:
        self.of.on_answer(self, message, rest)

    def on_refusal(self, refused: Refused) -> None:
        self.of.on_refusal(self, refused)


class AnswerOrder:
    """The order of a stream's answers: those with the same id, or without, are sent in the order of their requests."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, deque[Asked]] = defaultdict(deque)

    def add(self, asked: Asked) -> None:
        self._lines[asked.id].append(asked)

    def due(self, asked: Asked) -> list[Asked]:
        """Remove and return the messages whose answers may be sent now that ``asked`` has its answer."""
        line = self._lines[asked.id]
        due: list[Asked] = []
        while line and line[0].answer is not None:
            due.append(line.popleft())
        if not line:
            del self._lines[asked.id]
        return due


class Conversation:
    """A stream of messages.

    Infer requests run at the same time, up to ``MAX_STREAM_REQUESTS``; each has an answer of its own, if only an error.
    In other streams, the next message is asked once the message before it is answered, and an error ends the stream.

    Messages are asked at once while the turn has time, and else in later turns. Without this bound, all of a stream's
    messages that wait would be asked in one turn. Their time of arrival is kept, from which their SLO counts.
    """

    may_be_quiet = True

    def __init__(self, stream: Stream, shared: Shared, later: "Backlog[Conversation]") -> None:
        """Begin a stream. ``later``: the connection's streams whose next message waits for a turn."""
        self._stream = stream
        self._shared = shared
        self._later = later
        self._is_infer = stream.head.path == STREAM_INFER
        # The ids of compressed messages are not known in time, so their answers keep the order of the messages.
        self._reads_ids = self._is_infer and stream.head.encoding == b"identity"
        # Messages that were not asked yet, and when they came.
        self._waiting: deque[tuple[Message, float]] = deque()
        self.held_bytes = 0
        self._open: dict[Asked, None] = {}
        self._order = AnswerOrder()
        # Requests that come after this time are refused, and the stream ends once it has answered the earlier ones.
        self._stops_s = float("inf")
        self._is_asking = self._is_due = self._has_left = False
        shared.counts.open += 1
        shared.counts.streaming += 1

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting) or len(self._open) >= (bounds.BUSY_STREAM_REQUESTS if self._is_infer else 1)

    def take(self, message: Message) -> None:
        self._waiting.append((message, self._stream.session.arrived_s))
        size_bytes = _held_bytes(message)
        self.held_bytes += size_bytes
        hold(self._shared.port.budget, size_bytes)
        if self._has_left:  # making room has ended this very stream
            return
        if self.held_bytes - _held_bytes(self._waiting[0][0]) > bounds.MAX_STREAM_HELD_BYTES:
            raise Overloaded("too many messages of this stream wait for their answers: send fewer at once")
        self._ask()

    def end(self) -> None:
        self._ask()

    def look(self) -> None: ...

    def resume(self) -> None:
        self._ask()

    def stop(self) -> None:
        self._stops_s = self._shared.port.now_s()
        self._ask()

    def leave(self) -> None:
        self._has_left = True
        self._shared.counts.open -= 1
        self._shared.counts.streaming -= 1
        self._waiting.clear()
        self._release(self.held_bytes)
        # The stream and the order refer to each other.
        self._order = AnswerOrder()
        for asked in list(self._open):
            self._close(asked)
            if asked.call is not None:
                asked.call.cancel()

    # -- answers -------------------------------------------------------------------------------------------

    def on_answer(self, asked: Asked, message: bytes, rest: Rest) -> None:
        if self._is_infer:
            size_bytes = len(_FINAL_PART) + len(message) + sum(map(len, rest))
            message = delimited_head(_INFER_RESPONSE, size_bytes) + _FINAL_PART + message
        self._answer(asked, message, rest)

    def on_refusal(self, asked: Asked, refused: Refused) -> None:
        if self._is_infer:
            self._answer(asked, _error(asked.id, refused))
        elif asked in self._open:
            self._close(asked)
            self._stream.refuse(refused)

    def _answer(self, asked: Asked, message: bytes, rest: Rest = ()) -> None:
        if asked not in self._open:
            return
        asked.answer = message, rest
        due = self._order.due(asked)
        if not due:
            self._hold_back(asked, len(message) + sum(map(len, rest)))
        for each in due:
            self._close(each)
            self._send(each)
        if not self._has_left:
            self._ask()

    def _hold_back(self, asked: Asked, size_bytes: int) -> None:
        """Keep an answer until the answers before it are sent, if there is room for it."""
        budget = self._shared.port.budget
        if not budget.has_room(size_bytes):
            no_room = Overloaded("answers that wait for those before them take up all memory: try again in a moment")
            asked.answer = _error(asked.id, refusal(no_room)), ()
        elif asked in self._open:  # making room may end this very stream
            asked.held_bytes += size_bytes
            budget.held_bytes += size_bytes

    def _send(self, asked: Asked) -> None:
        if self._has_left or asked.answer is None:
            return
        try:
            self._stream.send(*asked.answer)
        except Overloaded as error:
            if self._is_infer:
                self._stream.send(_error(asked.id, refusal(error)))
            else:
                self._stream.fail(error)

    # -- requests ------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._is_asking or self._is_due:
            return
        turn = self._shared.port.turn
        self._is_asking = True
        while self._can_ask and turn.is_open(turn.now_s()):
            self._ask_next()
        self._settle()
        if self._is_due:
            self._later.add(self)

    def go_on(self, end_s: float) -> bool:
        """Ask a message that has waited for a turn. Return whether no other message waits for a turn."""
        self._is_asking = True
        if self._can_ask:
            self._ask_next()
        self._settle()
        return not self._is_due

    def _settle(self) -> None:
        self._is_asking = False
        self._is_due = self._can_ask
        if not self._is_due:
            self._look_at_end()

    def _look_at_end(self) -> None:
        if self._has_left or self._waiting:
            return
        if not self.is_busy:
            self._stream.resume()
        if self._open:
            return
        if self._stream.has_ended:
            self._stream.finish()
        elif self._stops_s < float("inf"):
            self._stream.fail(STOPPING)

    @property
    def _can_ask(self) -> bool:
        return (
            bool(self._waiting)
            and not self._has_left
            and not (self._open and not self._is_infer)
            and not self._stream.is_behind
        )

    def _ask_next(self) -> None:
        message, arrived_s = self._waiting.popleft()
        port, services = self._shared.port, self._shared.services
        self._release(_held_bytes(message))
        asked = Asked(self, id_of(memoryview(message.data)) if self._reads_ids else "")
        port.budget.held_bytes += asked.held_bytes
        self._shared.counts.in_flight += 1
        error = self._why_refused(arrived_s)
        self._open[asked] = None
        self._order.add(asked)
        if error is not None:
            port.refused[error.code] += 1
            asked.on_refusal(refusal(error))
            return
        try:
            method = services.infer if self._is_infer else services.reflected
            call = start(self._stream, asked, message, self._shared, method, arrived_s)
        except ClipperError as problem:
            self._stream.fail(problem)
            return
        if self._has_left:
            call.cancel()
        elif asked in self._open:
            asked.call = call

    def _why_refused(self, arrived_s: float) -> ClipperError | None:
        """Return why a message that came at this time is not asked; None if it is asked."""
        if len(self._open) >= bounds.MAX_STREAM_REQUESTS:
            most = bounds.MAX_STREAM_REQUESTS
            return Overloaded(f"{most} requests of this stream wait for their answers: wait for some of these")
        return STOPPING if arrived_s > self._stops_s else None

    def _release(self, size_bytes: int) -> None:
        """Release the memory of messages of this size, which wait no longer."""
        self.held_bytes -= size_bytes
        self._shared.port.budget.held_bytes -= size_bytes

    def _close(self, asked: Asked) -> None:
        if asked in self._open:
            del self._open[asked]
            self._shared.counts.in_flight -= 1
            self._shared.port.budget.held_bytes -= asked.held_bytes


def _held_bytes(message: Message) -> int:
    return len(message.data) + bounds.MESSAGE_HELD_BYTES


def _error(request_id: str, refused: Refused) -> bytes:
    """Return an error as the answer to a request, with the request's id, by which clients match it."""
    answer = {"id": request_id, "parameters": _FINAL | {"code": {"string_param": refused.code}}}
    return encode(_STREAM_RESPONSE, {"error_message": str(refused), "infer_response": answer})
