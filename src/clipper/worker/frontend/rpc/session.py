"""A client's connection of HTTP/2, without its socket: bytes to calls, and answers to bytes.

libnghttp2 knows HTTP/2, and answers input that is not HTTP/2; where it is not installed, h2 does. This module turns its
streams into gRPC's calls, and decides how much a client may send.
"""

import struct
from collections import Counter, deque
from contextlib import suppress
from typing import Protocol

from clipper.errors import ClipperError, DeadlineExceeded, MalformedRequest, Overloaded, RequestTimeout
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.http.heads import Headers
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.framing import ANSWER_HEAD, NotGrpc, prefix_of, read_head
from clipper.worker.frontend.rpc.statuses import Refused, refusal, trailers_of
from clipper.worker.frontend.rpc.stream import Behaviour, Rest, Stream

try:
    import ngh2
except ImportError:
    from clipper.worker.frontend.rpc import pure_http2 as ngh2  # type: ignore[no-redef]

# Why a connection or call ends, and what a server tells its clients: RFC 9113, sections 7 and 6.5.2.
NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0x0, 0x1, 0xB
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_HEADER_LIST_SIZE = 0x3, 0x4, 0x6

_CONFIGURATION = ngh2.Configuration(
    # A stream's client waits while enough of its messages do.
    auto_window_update=False,
    max_outbound_ack=bounds.MAX_ACKNOWLEDGEMENTS,
    stream_reset_rate_limit=(bounds.RESETS_AT_ONCE, bounds.RESETS_PER_SECOND),
    max_inbound_header_list_size=bounds.MAX_FATAL_HEAD_BYTES,
    max_inbound_header_count=bounds.MAX_HEADERS,
)
_SETTINGS = {
    _MAX_CONCURRENT_STREAMS: bounds.MAX_STREAMS,
    _INITIAL_WINDOW_SIZE: bounds.STREAM_WINDOW_BYTES,
    _MAX_HEADER_LIST_SIZE: limits.MAX_HEAD_BYTES,
}
_GOAWAY = struct.Struct(">HBBBIII")
_GOAWAY_TYPE = 7


class Host(Protocol):
    """The connection, from its session's view."""

    @property
    def most_message_bytes(self) -> int: ...

    def begin(self, stream: Stream) -> Behaviour:
        """Begin a call. Raises ClipperError if it is refused."""

    def has_room(self, size_bytes: int) -> bool:
        """Whether there is room for an answer until its client reads it."""

    def on_output(self) -> None:
        """Send the session's output soon."""

    def on_large_freed(self, rest: deque[bytes | memoryview] | None = None) -> None:
        """Note that a large message was dropped. ``rest`` of it is still to be dropped, in steps."""


class Session:
    """
    Attributes:
        streams: the open calls, which have no final answer, by number.
        has_begun: whether the client has sent its preface and settings.
        is_over: whether nothing more is read. The rest of the output has to be sent.
        last_call_sweep: when the last call began or ended.
    """

    def __init__(self, host: Host, budget: Budget, refused: Counter[str]) -> None:
        """``refused`` counts refused calls by error code."""
        self._host = host
        self._budget = budget
        self.refused = refused
        self.streams: dict[int, Stream] = {}
        self.has_begun = False
        self.is_over = False
        self.last_call_sweep = 0
        self._sweep = 0
        self.arrived_s = 0.0
        self.client = ""
        self._idle_frames = self._calls = 0
        # Answered calls whose client still sends, which are reset once the answer is sent.
        self._to_reset: set[int] = set()
        # Calls whose client does not take its answers.
        self._blocked: dict[int, Stream] = {}
        # Long messages that libnghttp2 has not taken yet, and the trailers behind them, by stream.
        self._long: dict[int, tuple[deque[bytes | memoryview], Headers | None]] = {}
        self._last_words = b""
        self._last_stream = 0
        self._http2 = ngh2.Connection(ngh2.Role.SERVER, _CONFIGURATION)
        self._http2.initiate_connection(_SETTINGS)
        self._http2.set_local_window_size(bounds.CONNECTION_WINDOW_BYTES)

    # -- what comes ------------------------------------------------------------------------------------------

    def receive(self, data: bytes, arrived_s: float, sweep: int) -> None:
        """Take in a piece of the client's input, at most ``READ_PIECE_BYTES``. Send the output before the next piece.

        Args:
            arrived_s: when the bytes were read. Clients' timeouts and SLOs begin then, however long the bytes waited
                since.
            sweep: the number of sweeps so far.
        """
        if self.is_over:
            return
        self.arrived_s = arrived_s
        self._begin_sweep(sweep)
        try:
            self._http2.receive_data(data)
        except ngh2.DenialOfServiceError:
            self._fail(ENHANCE_YOUR_CALM)
        except (ngh2.NGH2Error, ValueError):
            self._fail(PROTOCOL_ERROR)
        else:
            self._take_events()

    def _begin_sweep(self, sweep: int) -> None:
        if sweep != self._sweep:
            self._sweep = sweep
            self._idle_frames = self._calls = 0

    def _take_events(self) -> None:
        for event in self._http2.events():
            if self.is_over:
                return
            if isinstance(event, ngh2.DataReceived):
                self._on_data(event.stream_id, event.data, event.end_stream)
            elif isinstance(event, ngh2.RequestReceived):
                self._on_request(event)
            elif isinstance(event, ngh2.StreamClosed):
                self._to_reset.discard(event.stream_id)
                self._drop_long(event.stream_id)
                stream = self.streams.get(event.stream_id)
                if stream is not None:
                    self._remove(stream)
            elif isinstance(event, ngh2.TrailersReceived):
                self._on_data(event.stream_id, b"", True)
            elif isinstance(event, ngh2.ConnectionClosed):
                self.close()
            elif isinstance(event, ngh2.SettingsReceived):
                self.has_begun = True
                self._idle_frames += 1
            elif isinstance(event, ngh2.PingReceived) or (
                isinstance(event, ngh2.WindowUpdated) and event.increment < bounds.SMALL_WINDOW_UPDATE_BYTES
            ):
                self._idle_frames += 1
        if self._idle_frames > bounds.MAX_IDLE_FRAMES + bounds.IDLE_FRAMES_PER_CALL * self._calls:
            self.terminate(ENHANCE_YOUR_CALM)

    def _on_request(self, event: ngh2.RequestReceived) -> None:
        self._calls += 1
        self.last_call_sweep = self._sweep
        self._last_stream = number = event.stream_id
        try:
            head = read_head(event.headers)
        except NotGrpc as other:
            self._answer(number, other.head, not event.end_stream)
            return
        except ClipperError as error:
            self.refused[error.code] += 1
            self._answer(number, [*ANSWER_HEAD, *trailers_of(refusal(error))], not event.end_stream)
            return
        stream = Stream(self, self._budget, number, head, self._sweep)
        self.streams[number] = stream
        try:
            stream.behaviour = self._host.begin(stream)
            if stream.behaviour.may_be_quiet:
                stream.waits_since_sweep = None
            if event.end_stream:
                self._end_input(stream)
        except (ClipperError, Refused) as error:
            stream.fail(error)

    def _on_data(self, number: int, data: bytes, is_last: bool) -> None:
        stream = self.streams.get(number)
        if stream is None or stream.behaviour is None:
            self._acknowledge(number, len(data))
            return
        behaviour = stream.behaviour
        try:
            if data:
                messages = stream.reader.add(data, self._host.most_message_bytes + bounds.MESSAGE_HEAD_BYTES)
                self._calls += len(messages)
                for message in messages:
                    if stream.is_open:
                        behaviour.take(message)
                if behaviour.may_be_quiet and (messages or stream.waits_since_sweep is None):
                    stream.waits_since_sweep = self._sweep if stream.reader.is_within_message else None
            elif not is_last:
                self._idle_frames += 1
            if is_last:
                self._end_input(stream)
        except (ClipperError, Refused) as error:
            stream.fail(error)
        if data:
            if behaviour.is_busy and stream.is_open:
                stream.withheld_bytes += len(data)
            else:
                self._acknowledge(number, len(data))

    def _end_input(self, stream: Stream) -> None:
        stream.has_ended = True
        stream.waits_since_sweep = None
        if stream.behaviour is not None:
            if stream.reader.is_within_message:
                raise MalformedRequest("the call ends within a message")
            stream.behaviour.end()

    def sweep(self, now_s: float, sweep: int) -> None:
        """End calls that take too long. Called once a second."""
        self._begin_sweep(sweep)
        for stream in list(self.streams.values()):
            try:
                since = stream.waits_since_sweep
                if since is not None and sweep - since > limits.REQUEST_TIMEOUT_SWEEPS:
                    raise RequestTimeout(f"the message did not arrive within {limits.REQUEST_TIMEOUT_SWEEPS} s")
                if stream.deadline_s is not None and now_s > stream.deadline_s + limits.SWEEP_S:
                    raise DeadlineExceeded("the call's deadline has passed")
                if stream.behaviour is not None:
                    stream.behaviour.look()
            except (ClipperError, Refused) as error:
                stream.fail(error)

    # -- what goes -------------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """Return the output to write now: at most ``WRITE_PIECE_BYTES``, and that much if there may be more."""
        if self._last_words:
            data, self._last_words = self._last_words, b""
            return data
        if self._long:
            self._pass_on()
        try:
            data = self._http2.data_to_send(bounds.WRITE_PIECE_BYTES)
        except ngh2.NGH2Error:  # the session has failed
            return b""
        if self._blocked:
            for stream in [each for each in self._blocked.values() if not self.is_behind(each)]:
                self._blocked.pop(stream.number, None)  # the one before it may have ended it
                if stream.behaviour is not None:
                    stream.behaviour.resume()
        self._take_events()
        if self._to_reset and len(data) < bounds.WRITE_PIECE_BYTES:
            data += self._resets()
            self._take_events()
        return data

    def _pass_on(self) -> None:
        """Give libnghttp2 as much of each long message as may be written now, since it copies its input."""
        http2 = self._http2
        for number, (rest, trailers) in list(self._long.items()):
            try:
                while rest and http2.queued_body_size(number) <= bounds.WRITE_PIECE_BYTES:
                    http2.send_data(number, rest.popleft())
                if not rest:
                    self._drop_long(number)
                    if trailers is not None:
                        http2.send_trailers(number, trailers)
            except ngh2.NGH2Error:  # libnghttp2 has given the stream up
                self._drop_long(number)

    def _drop_long(self, number: int) -> None:
        rest, _ = self._long.pop(number, (None, None))
        if rest is not None:
            self._host.on_large_freed(rest)

    def _resets(self) -> bytes:
        for number in list(self._to_reset):
            if not self._http2.queued_body_size(number) and number not in self._long:
                self._to_reset.discard(number)
                self._http2.reset_stream(number, NO_ERROR)
        return self._http2.data_to_send(bounds.WRITE_PIECE_BYTES)

    @property
    def unsent_bytes(self) -> int:
        """The bytes of answers that the client's windows do not let out."""
        passed_on = self._http2.queued_body_size()
        return passed_on + sum([len(piece) for rest, _ in self._long.values() for piece in rest])

    def is_behind(self, stream: Stream) -> bool:
        number = stream.number
        unsent_bytes = self._http2.queued_body_size(number)
        if number in self._long:
            unsent_bytes += sum(map(len, self._long[number][0]))
        if unsent_bytes > bounds.MAX_STREAM_UNSENT_BYTES:
            self._blocked[stream.number] = stream
            return True
        return False

    def _acknowledge(self, number: int, size_bytes: int) -> None:
        if size_bytes and not self.is_over:
            # Perhaps only libnghttp2 knows of the end yet: its event comes after those of calls.
            with suppress(ngh2.NGH2Error, ValueError):
                self._http2.acknowledge_received_data(size_bytes, number)

    def resume(self, number: int, size_bytes: int) -> None:
        self._acknowledge(number, size_bytes)
        self._host.on_output()

    def send(self, stream: Stream, message: bytes | None, trailers: Headers | None, rest: Rest = ()) -> None:
        http2, number = self._http2, stream.number
        size_bytes = len(message or b"") + sum(map(len, rest))
        self._host.on_output()
        try:
            if not stream.has_head:
                stream.has_head = True
                http2.send_response(number, stream.answer_head)
            if message is None:
                pass
            elif size_bytes > limits.LARGE_ANSWER_BYTES and not self._host.has_room(size_bytes):
                raise Overloaded("answers that clients have not read take up all memory for them: try again later")
            else:
                message = prefix_of(size_bytes) + message
                if number in self._long:
                    self._long[number][0].extend((message, *rest))
                else:
                    http2.send_data(number, message)
                    if rest:
                        self._long[number] = deque(rest), None
            if number in self._long:
                self._long[number] = self._long[number][0], trailers
            elif trailers is not None:
                http2.send_trailers(number, trailers)
        except ngh2.NGH2Error:  # libnghttp2 has given up the stream, and will say so
            self._remove(stream)
            return
        if trailers is not None:
            self._end_output(stream)

    def refuse(self, stream: Stream, trailers: Headers) -> None:
        self._host.on_output()
        self._answer(stream.number, [*stream.answer_head, *trailers], False)
        self._end_output(stream)

    def _answer(self, number: int, head: Headers, is_to_reset: bool) -> None:
        with suppress(ngh2.NGH2Error):  # as above
            self._http2.send_response(number, head, end_stream=True)
            if is_to_reset:
                self._to_reset.add(number)

    def _end_output(self, stream: Stream) -> None:
        if not stream.has_ended:
            self._to_reset.add(stream.number)
        self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        if not stream.is_open:
            return
        stream.is_open = False
        del self.streams[stream.number]
        self._blocked.pop(stream.number, None)
        self.last_call_sweep = self._sweep
        if stream.reader.held_bytes > limits.LARGE_BODY_BYTES:
            self._host.on_large_freed()
        stream.reader.drop()
        stream.resume()
        behaviour, stream.behaviour = stream.behaviour, None
        if behaviour is not None:
            behaviour.leave()

    # -- the end ---------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Send a PING, which the client has to answer if it is there."""
        with suppress(ngh2.NGH2Error):  # the session is over
            self._http2.ping()

    def announce_end(self) -> None:
        """Tell the client to begin no more calls. Calls that it begins meanwhile are still taken in."""
        with suppress(ngh2.NGH2Error):  # as above
            self._http2.send_shutdown_notice()

    def begin_end(self) -> None:
        """Take in no more calls. Once the open calls have ended, the session is over."""
        with suppress(ngh2.NGH2Error):  # as above
            self._http2.send_goaway(NO_ERROR)

    def terminate(self, code: int) -> None:
        """Give up all calls, and tell the client why."""
        with suppress(ngh2.NGH2Error):  # as above
            self._http2.terminate_connection(code)
        self.close()

    def _fail(self, code: int) -> None:
        """Tell the client that its input is not HTTP/2 or passes a bound: libnghttp2 itself ends without telling."""
        self._last_words = _GOAWAY.pack(0, 8, _GOAWAY_TYPE, 0, 0, self._last_stream, code)
        self.close()

    def close(self) -> None:
        """Drop all calls, and take in nothing more."""
        self.is_over = True
        self._to_reset.clear()
        for number in list(self._long):
            self._drop_long(number)
        for stream in list(self.streams.values()):
            self._remove(stream)
