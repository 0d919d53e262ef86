"""A connection without a socket: what is read is given, what is written is kept."""

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterable, Mapping

from clipper.base.turn_budget import TurnBudget
from clipper.worker.frontend import limits
from clipper.worker.frontend.endpoint import Endpoint
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.connection import Connection
from clipper.worker.frontend.http.port import Port
from clipper.worker.telemetry.watch import Watch
from tests.serving import Response, read_response


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        # Bytes that a client would not have taken yet.
        self.unsent_bytes = 0
        self.is_paused = self.has_ended = self.is_closed = self.is_aborted = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes | memoryview)
        assert not self.has_ended, "written after the end"
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Peer:
    """A client of a connection of ``port``."""

    def __init__(self, port: Port) -> None:
        self.transport = FakeTransport()
        self.connection = Connection(port)
        self.connection.connection_made(self.transport)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.data_received(part)

    async def send_in_turns(self, parts: Iterable[bytes]) -> None:
        """As an event loop does: a part is read only while reading is not paused."""
        for part in parts:
            for _ in range(1000):
                if not self.transport.is_paused:
                    break
                await asyncio.sleep(0)
            assert not self.transport.is_paused, "reading never resumed"
            if self.transport.is_closed:
                return
            self.connection.data_received(part)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def leave(self) -> None:
        self.connection.connection_lost(None)

    @property
    def responses(self) -> list[Response]:
        """All answers so far; fails if they are not whole answers one after another."""
        stream = io.BytesIO(bytes(self.transport.written))
        found = []
        while stream.tell() < len(self.transport.written):
            found.append(read_response(stream))
        return found


class Echo:
    """Answers with the body, as JSON text."""

    methods = ("POST",)
    max_body_bytes = limits.MAX_BODY_BYTES
    slo_s = 1.0
    error_json = staticmethod(responses.error_json)

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.answer(200, b'"%b"' % body.hex().encode())


class Later:
    """Keeps the exchanges, to be answered by the test."""

    methods = ("POST",)
    max_body_bytes = limits.MAX_BODY_BYTES
    slo_s = 1.0
    error_json = staticmethod(responses.error_json)

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.bodies: list[bytes] = []
        self.cancelled: list[bytes] = []

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        self.exchanges.append(exchange)
        self.bodies.append(bytes(body))
        exchange.started = _Started(self, bytes(body))

    def answer(self, index: int) -> None:
        self.exchanges[index].answer(200, b'"%b"' % self.bodies[index].hex().encode())


def later() -> tuple[Later, dict[bytes, Later]]:
    """An endpoint that the test answers, and its path."""
    endpoint = Later()
    return endpoint, {b"/later/predict": endpoint}


class _Started:
    def __init__(self, later: Later, body: bytes) -> None:
        self._later = later
        self._body = body

    def cancel(self) -> None:
        self._later.cancelled.append(self._body)


class Broken:
    """Has a bug."""

    methods = ("POST",)
    max_body_bytes = limits.MAX_BODY_BYTES
    slo_s = 1.0
    error_json = staticmethod(responses.error_json)

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        raise RuntimeError("on purpose")


def standing_port(max_connections: int = 100, watch: Watch | None = None) -> Port:
    """Time stands still, or what a test sends without a turn of the loop would wait, on a busy machine now and then."""
    port = Port(max_connections=max_connections, watch=watch)
    now_s = port.now_s()
    port.now_s = lambda: now_s
    port.turn = TurnBudget(asyncio.get_running_loop().call_soon, port.now_s)
    return port


def run(
    test: Callable[[Port], Coroutine[None, None, None]],
    endpoints: Mapping[bytes, Endpoint] | None = None,
    max_connections: int = 100,
    watch: Watch | None = None,
) -> None:
    """Run ``test`` on a loop, with a port that is not listening."""

    async def body() -> None:
        port = standing_port(max_connections, watch)
        port.serve({b"/echo/predict": Echo()} if endpoints is None else endpoints)
        await test(port)

    asyncio.run(body())
