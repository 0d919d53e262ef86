"""A client of a connection of gRPC without a socket, that sends frames as it is told."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from clipper.values.types import InputType
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.frontend.rpc.server import RpcServer
from clipper.worker.frontend.rpc.service import Services
from clipper.worker.selection.query import NO_SOURCE
from tests.worker.frontend.fake_transport import FakeTransport, standing_port
from tests.worker.frontend.inference.fuzz_infer import Answering
from tests.worker.frontend.inference.fuzz_infer import serving as serving_of
from tests.worker.frontend.rpc.http2 import PREFACE, message_frame
from tests.worker.frontend.rpc.rpc_messages import INFER, raw_request

OWN = InputType.parse("float32[4]")
ASKED = raw_request(bytes(16), [1, 4]).SerializeToString()


def headers_of(path: str = INFER, **changes: str | None) -> list[tuple[str, str]]:
    """A call's headers. ``changes``: by name with _ for -, where a leading _ is a colon; None leaves one out."""
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    fields |= {
        name.replace("_", ":", 1).replace("_", "-") if name[0] == "_" else name.replace("_", "-"): value
        for name, value in changes.items()
    }
    return [(name, value) for name, value in fields.items() if value is not None]


class FakeClient:
    """
    Attributes:
        transport: what the connection writes to.
    """

    def __init__(
        self,
        server: RpcServer | None = None,
        output: bytes | None = b"1.5",
        settings: Any = None,
        preface: bytes | None = None,
    ) -> None:
        self.server = server or serving(output)
        self.port = self.server.port
        self.transport = FakeTransport()
        self.connection = self.server.make_connection()
        self.connection.connection_made(self.transport)
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._read_bytes = 0
        hello = (PREFACE, SettingsFrame(0, settings or {}), SettingsFrame(0, flags=["ACK"]))
        self.send(*(hello if preface is None else (preface,)))

    def send(self, *frames: Frame | bytes) -> None:
        """All in one piece."""
        if not self.transport.is_closed:
            data = b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames)
            self.connection.data_received(data)

    def headers(
        self, stream: int, fields: Sequence[tuple[str, str]] | None = None, flags: Sequence[str] = ("END_HEADERS",)
    ) -> HeadersFrame:
        block = self._encoder.encode(headers_of() if fields is None else fields)
        return HeadersFrame(stream, block, flags=flags)

    def call(self, stream: int, message: bytes = ASKED, fields: Sequence[tuple[str, str]] | None = None) -> None:
        self.send(self.headers(stream, fields), DataFrame(stream, message_frame(message), flags=["END_STREAM"]))

    def frames(self) -> list[Frame]:
        """The answers that have come since the last time."""
        data = memoryview(bytes(self.transport.written))[self._read_bytes :]
        found = []
        while data:
            frame, size = Frame.parse_frame_header(data[:9])
            frame.parse_body(data[9 : 9 + size])
            found.append(frame)
            data = data[9 + size :]
        self._read_bytes = len(self.transport.written)
        return found

    async def answers(self, turns: int = 5) -> dict[int, dict[str, Any]]:
        """By stream: headers and trailers, ``data``, ``reset``. Of stream 0: ``goaway`` and kinds of other frames."""
        for _ in range(turns):
            await asyncio.sleep(0)
        found: dict[int, dict[str, Any]] = {0: {"kinds": []}}
        for frame in self.frames():
            of = found.setdefault(frame.stream_id, {})
            if isinstance(frame, HeadersFrame):
                of |= dict(self._decoder.decode(frame.data))
                of["is_over"] = "END_STREAM" in frame.flags
            elif isinstance(frame, DataFrame):
                of["data"] = of.get("data", b"") + frame.data
            elif isinstance(frame, RstStreamFrame):
                of["reset"] = frame.error_code
            elif isinstance(frame, GoAwayFrame):
                of.setdefault("goaway", []).append(frame.error_code)
            else:
                of.setdefault("kinds", []).append(type(frame).__name__)
        return found

    def leave(self) -> None:
        if not self.transport.is_closed:
            self.transport.is_closed = True
        self.connection.connection_lost(None)


def serving(
    output: bytes | None = b"1.5",
    application: Any = None,
    max_connections: int = 100,
    readiness: Readiness | None = None,
) -> RpcServer:
    port = standing_port(max_connections)
    server = RpcServer(port)
    own = cast(Any, application or Answering(OWN, None, output))
    server.serve(Services(serving_of(own, port, readiness or Readiness([own]))))
    return server


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


class Query:
    """``asker``: who waits for its answer; None once it is cancelled. ``arrived_s``: from when its SLO counts."""

    done = False

    def __init__(self, asker: Any, arrived_s: float) -> None:
        self.asker: Any = asker
        self.arrived_s = arrived_s

    def cancel(self) -> None:
        self.asker = None


class Later(Answering):
    """An application whose queries wait until a test answers them."""

    def __init__(self) -> None:
        super().__init__(OWN, None, None)  # its outputs have no type: tests answer with any
        self.waiting: list[Query] = []

    def predict(self, row: bytes, asker: Any, arrived_s: float, *_: object) -> Any:
        query = Query(asker, arrived_s)
        self.waiting.append(query)
        return query


class Served:
    """A client of an application that answers when it is told."""

    def __init__(self, **settings: Any) -> None:
        self.application = Later()
        self.readiness = Readiness([cast(Any, self.application)])
        own = serving(application=self.application, readiness=self.readiness)
        self.client = FakeClient(own, **settings)
        self.port = self.client.port
        self.counts = self.client.server.counts

    def answer(self, count: int = 1000, output: bytes = b"1.5") -> None:
        waiting = self.application.waiting
        asked, waiting[:count] = waiting[:count], []
        for query in asked:  # others may be asked meanwhile
            if query.asker is not None:
                query.asker.on_prediction(1, output, 1.0, NO_SOURCE)

    def sweep(self, sweeps: int = 1) -> None:
        for _ in range(sweeps):
            self.port.sweeps += 1
            self.client.connection.sweep(self.port.sweeps)

    def assert_nothing_left(self) -> None:
        assert self.counts.open == self.counts.streaming == self.counts.in_flight == self.port.budget.held_bytes == 0


def data(message: bytes, stream: int = 1, is_last: bool = False) -> DataFrame:
    return DataFrame(stream, message, flags=["END_STREAM"] if is_last else [])
