"""HTTP/2 by ``h2``, in pure Python, with the names of ``ngh2`` that the session uses: for machines without ngh2.

HTTP/2 itself costs some ten times what it costs with ngh2. Beside that, h2 is stricter: a request that breaks HTTP/2
ends its connection, and not its stream alone. It does not tell clients the bound of a head.
"""

import struct
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

import h2.events
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated as ConnectionClosed
from h2.events import PingReceived, TrailersReceived
from h2.events import RemoteSettingsChanged as SettingsReceived
from h2.exceptions import DenialOfServiceError, StreamClosedError
from h2.exceptions import ProtocolError as NGH2Error
from h2.settings import SettingCodes, Settings

from clipper.worker.frontend.http.heads import Headers

_GOAWAY = struct.Struct(">HBBBIII")
_GOAWAY_TYPE = 7
_LAST_STREAM = 2**31 - 1
_FIRST_WINDOW_BYTES = 65_535


class Role(Enum):
    SERVER = "server"


class Configuration(NamedTuple):
    """See ``ngh2.Configuration``. ``bounds.MAX_IDLE_FRAMES`` bounds acknowledgements, too."""

    auto_window_update: bool
    max_outbound_ack: int
    stream_reset_rate_limit: tuple[int, int]
    max_inbound_header_list_size: int
    max_inbound_header_count: int


class RequestReceived(NamedTuple):
    stream_id: int
    headers: Headers
    end_stream: bool


class DataReceived(NamedTuple):
    stream_id: int
    data: bytes
    end_stream: bool


class StreamClosed(NamedTuple):
    stream_id: int


class WindowUpdated(NamedTuple):
    increment: int


Event = RequestReceived | DataReceived | StreamClosed | WindowUpdated | h2.events.Event


class _Output:
    """The body of an answer that the client's windows have not let out, and its trailers once they are known."""

    def __init__(self) -> None:
        self.pieces: deque[memoryview] = deque()
        self.size_bytes = 0
        self.trailers: Headers | None = None
        self.has_client_ended = False


class Connection:
    """A server's side of a connection."""

    def __init__(self, role: Role, configuration: Configuration) -> None:
        config = H2Configuration(
            client_side=role is not Role.SERVER,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = H2Connection(config)
        self._h2.decoder.max_header_list_size = configuration.max_inbound_header_list_size
        self._most_headers = configuration.max_inbound_header_count
        self._most_resets, self._resets_per_s = configuration.stream_reset_rate_limit
        self._resets_left, self._resets_at_s = float(self._most_resets), time.monotonic()
        self._events: list[Event] = []
        self._open: dict[int, _Output] = {}
        self._pending = bytearray()
        self._is_ending = self._has_ended = False

    def initiate_connection(self, settings: Mapping[int, int]) -> None:
        told = {name: value for name, value in settings.items() if name != SettingCodes.MAX_HEADER_LIST_SIZE}
        self._h2.local_settings = Settings(client=False, initial_values=told)  # type: ignore[arg-type]
        self._h2.initiate_connection()

    def set_local_window_size(self, window_size: int) -> None:
        self._h2.increment_flow_control_window(window_size - _FIRST_WINDOW_BYTES)

    # -- what comes ------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Raises NGH2Error if the input is no beginning of HTTP/2, DenialOfServiceError if it passes a bound."""
        try:
            for event in self._h2.receive_data(data):
                self._take(event)
        except DenialOfServiceError:
            self._h2.clear_outbound_data_buffer()  # the session says itself why it ends
            raise
        except NGH2Error:
            if self._h2.state_machine.state is not ConnectionState.CLOSED:
                raise  # h2 has sent no error to the client
            self._end()

    def events(self) -> list[Event]:
        if self._is_ending and not self._open and not self._has_ended:
            self._has_ended = True
            self._events.append(ConnectionClosed())
        events, self._events = self._events, []
        return events

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived(stream_id=int(number), data=data, flow_controlled_length=length):
                data = data or b""
                if (padding := (length or 0) - len(data)) > 0:
                    self.acknowledge_received_data(padding, number)
                self._events.append(DataReceived(number, data, event.stream_ended is not None))
            case h2.events.RequestReceived(stream_id=int(number), headers=headers):
                fields: Headers = [(bytes(name), bytes(value)) for name, value in headers or ()]
                if len(fields) > self._most_headers:
                    raise DenialOfServiceError
                if self._is_ending:
                    self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
                    return
                self._open[number] = _Output()
                self._events.append(RequestReceived(number, fields, event.stream_ended is not None))
            case h2.events.StreamEnded(stream_id=int(number)) if number in self._open:
                self._open[number].has_client_ended = True
            case h2.events.StreamReset(stream_id=int(number)):
                if event.remote_reset:
                    self._count_reset()
                self._close(number)
            case TrailersReceived() | SettingsReceived() | PingReceived():
                self._events.append(event)
            case h2.events.WindowUpdated(delta=increment):
                self._events.append(WindowUpdated(increment or 0))
            case ConnectionClosed():
                # The client begins no more calls. h2 itself would not answer the open ones.
                self._is_ending, self._h2.state_machine.state = True, ConnectionState.SERVER_OPEN

    def _count_reset(self) -> None:
        """Raise DenialOfServiceError if calls are reset faster than the bucket of resets fills."""
        now_s = time.monotonic()
        gained = (now_s - self._resets_at_s) * self._resets_per_s
        self._resets_left = min(self._resets_left + gained, float(self._most_resets)) - 1.0
        self._resets_at_s = now_s
        if self._resets_left < 0.0:
            raise DenialOfServiceError

    def _close(self, number: int) -> None:
        if self._open.pop(number, None) is not None:
            self._events.append(StreamClosed(number))

    def acknowledge_received_data(self, amount: int, stream_id: int) -> None:
        self._h2.acknowledge_received_data(amount, stream_id)

    # -- what goes -------------------------------------------------------------------------------------------

    def send_response(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        output = self._output(stream_id)
        self._h2.send_headers(stream_id, headers, end_stream)
        if end_stream:
            self._end_output(stream_id, output)

    def send_data(self, stream_id: int, data: bytes | memoryview) -> None:
        output = self._output(stream_id)
        output.pieces.append(memoryview(data))
        output.size_bytes += len(data)

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        self._output(stream_id).trailers = headers

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        with suppress(StreamClosedError):  # it has ended by itself
            self._h2.reset_stream(stream_id, error_code)
        self._close(stream_id)

    def queued_body_size(self, stream_id: int | None = None) -> int:
        if stream_id is None:
            return sum([output.size_bytes for output in self._open.values()])
        output = self._open.get(stream_id)
        return 0 if output is None else output.size_bytes

    def data_to_send(self, amount: int) -> bytes:
        """Return at most ``amount`` bytes of output, a frame of each answer in turn."""
        pending, http2 = self._pending, self._h2
        pending += http2.data_to_send()
        is_written = True
        while is_written and len(pending) < amount and not self._has_ended:
            is_written = False
            for number, output in list(self._open.items()):
                if (output.pieces or output.trailers is not None) and len(pending) < amount:
                    is_written |= self._write(number, output)
                    pending += http2.data_to_send()
        data = bytes(pending[:amount])
        del pending[:amount]
        return data

    def _write(self, number: int, output: _Output) -> bool:
        """Write a frame of a body, and the trailers behind the last. Return whether the windows let any out."""
        room = max(0, self._h2.local_flow_control_window(number))
        size_bytes = min(room, self._h2.max_outbound_frame_size, len(output.pieces[0])) if output.pieces else 0
        if size_bytes:
            piece = output.pieces.popleft()
            self._h2.send_data(number, bytes(piece[:size_bytes]))
            if size_bytes < len(piece):
                output.pieces.appendleft(piece[size_bytes:])
            output.size_bytes -= size_bytes
        if not output.pieces and output.trailers is not None:
            self._h2.send_headers(number, output.trailers, end_stream=True)
            output.trailers = None
            self._end_output(number, output)
            return True
        return size_bytes > 0

    def _output(self, number: int) -> _Output:
        """Raises NGH2Error if the stream is closed, or its answer has ended."""
        output = self._open.get(number)
        if output is None or self._has_ended:
            raise StreamClosedError(number)
        return output

    def _end_output(self, number: int, output: _Output) -> None:
        if output.has_client_ended:
            self._close(number)

    # -- the end ---------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self._h2.ping(bytes(8))

    def send_shutdown_notice(self) -> None:
        self._go_away(_LAST_STREAM, ErrorCodes.NO_ERROR)

    def send_goaway(self, error_code: int) -> None:
        self._is_ending = True
        self._go_away(self._h2.highest_inbound_stream_id, error_code)

    def terminate_connection(self, error_code: int) -> None:
        self.send_goaway(error_code)
        self._end()

    def _go_away(self, last_stream: int, code: int) -> None:
        # h2 itself would send nothing more, not even the answers of open calls.
        self._pending += self._h2.data_to_send()
        self._pending += _GOAWAY.pack(0, 8, _GOAWAY_TYPE, 0, 0, last_stream, code)

    def _end(self) -> None:
        self._is_ending = True
        for number in list(self._open):
            self._close(number)
