"""``python -m benchmarks.attacks.attackers ATTACK HOST:PORT CONNECTIONS SECONDS``: send what a stranger may send.

In place of ``HOST:PORT``, ``https://HOST:PORT`` is asked over TLS.

``newcomers`` is no attack: it connects anew twenty times a second, asks the application ``neighbour`` once each time,
and prints how many were answered by a model, how many were not, and the longest wait in milliseconds.
"""

import asyncio
import contextlib
import json
import ssl
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import uvloop

from clipper.base.open_files import raise_limit
from clipper.model.protocol.messages import encode_predict
from clipper.values.types import DType
from clipper.worker.frontend.rpc.protocols import OPEN_INFERENCE
from clipper.worker.frontend.rpc.wire import encode

# Written at once, and again whenever the socket has taken it.
CHUNK_BYTES = 256 * 1024
ROWS = 10_000
ROW = struct.pack("<4d", 1.5, 2.5, 3.5, 4.5)
# Connections of one client, whatever is asked for: enough to hold all memory for requests, and most of a port.
HOLDERS, HALF_REQUESTS = 40, 10_500
HALF_BODY_BYTES = 8 * 1024 * 1024 - 4096
# An attacker takes so many of a port's calls, on so many streams.
HALF_CALLS, STREAMS, CALLS_AT_ONCE = 256, 8, 200
# Each way, of an output.
LARGE_LENGTH = 2048
# Rows of 4 MiB that are asked at once, and the numbers of the longest input.
LARGE_ROWS, ROW_NUMBERS, MANY_NUMBERS = 64, 524_288, 10_000_000
READ_BYTES = 1 << 20
NEWCOMER_EVERY_S, NEWCOMER_WITHIN_S = 0.05, 5.0

# How a ClientHello of 512 bytes begins.
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
WINDOW_BYTES = 65_535


def post(path: str, body: bytes, head: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: a\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


def numbers() -> bytes:
    return json.dumps({"input": [1.5, 2.5, 3.5, 4.5]}).encode()


def tensor() -> bytes:
    described = {"name": "input", "datatype": "FP64", "shape": [ROWS, 4], "parameters": {"binary_data_size": 32 * ROWS}}
    text = json.dumps({"inputs": [described]}).encode()
    data = struct.pack(f"<{4 * ROWS}d", *range(4 * ROWS))
    return post("/v2/models/greedy/infer", text + data, f"inference-header-content-length: {len(text)}\r\n")


def infer() -> bytes:
    inputs = [{"name": "input", "datatype": "FP64", "shape": [1, 4], "data": [1.5, 2.5, 3.5, 4.5]}]
    return post("/v2/models/greedy/infer", json.dumps({"inputs": inputs}).encode())


def block(application: str, rows: Sequence[bytes], dtype: DType = DType.FLOAT64) -> bytes:
    """Rows that are evaluated while no query waits."""
    return post(f"/v2/models/{application}/score", b"".join(encode_predict(0, dtype, 0, rows)))


# Requests that are sent again and again on one connection.
PIPELINED: dict[str, Callable[[], bytes]] = {
    "not_found": lambda: b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
    "health": lambda: b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n",
    "cached": lambda: post("/cached/predict", numbers()),
    "predict": lambda: post("/greedy/predict", numbers()),
    "shared_model": lambda: post("/guest/predict", numbers()),
    "infer": infer,
    "wrong_input": lambda: post("/greedy/predict", b'{"input": [1, "x"]}'),
    "own_heads": lambda: post("/greedy/predict", numbers(), "x-own: 1\r\n"),
    "batches": lambda: post("/greedy/predict", json.dumps({"input_batch": [[1.5, 2.5]] * 1000}).encode()),
    "statistics": lambda: b"GET /v2/models/greedy/stats HTTP/1.1\r\nhost: a\r\n\r\n",
    "description": lambda: b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n",
    "feedback": lambda: post("/greedy/observe", b'{"input": [1.5, 2.5, 3.5, 4.5], "label": 1}'),
    "block_of_one": lambda: block("greedy", [ROW]),
    "blocks": lambda: block("greedy", [ROW] * ROWS),
    "blocks_shared": lambda: block("guest", [ROW] * ROWS),
    # Lengths that belong to no input of the application.
    "block_of_nothing": lambda: block("greedy", [b"", b"x"] * 32_768, DType.STRING),
}


class Pipelining(asyncio.Protocol):
    """Sends as much as the server takes, and reads all answers."""

    def __init__(self, chunk: bytes) -> None:
        self._chunk = chunk

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_paused = False
        self._send()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._send()

    def _send(self) -> None:
        while not self._is_paused and not self._transport.is_closing():
            self._transport.write(self._chunk)


# -- HTTP/2 -------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def call_head(method: str) -> bytes:
    """The headers of a call, in HPACK without its table."""
    path = f"/inference.GRPCInferenceService/{method}".encode()
    named = ((b"\x04", path), (b"\x01", b"a"), (b"\x0f\x10", b"application/grpc"), (b"\x00\x02te", b"trailers"))
    return b"\x83\x86" + b"".join(name + bytes((len(value),)) + value for name, value in named)


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


def asked(application: str = "greedy", row: Sequence[float] = (1.5, 2.5, 3.5, 4.5)) -> bytes:
    inputs = [{"name": "input", "datatype": "FP64", "shape": [1, len(row)]}]
    raw = struct.pack(f"<{len(row)}d", *row)
    values = {"model_name": application, "inputs": inputs, "raw_input_contents": [raw]}
    return message(encode(OPEN_INFERENCE.message("ModelInferRequest"), values))


INVALID = message(b"\xff\xff")


class Calling(asyncio.Protocol):
    """A client of HTTP/2 that reads frames and knows how much it may send."""

    def __init__(self) -> None:
        self._data = b""
        self.window_bytes = WINDOW_BYTES
        self.first_bytes = WINDOW_BYTES
        self.windows: dict[int, int] = {}
        self.open_calls = 0
        self._next = 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        most = 2**31 - 1
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, most))
        opened = frame(WINDOW_UPDATE, 0, 0, (most - WINDOW_BYTES).to_bytes(4, "big"))
        self.transport.write(PREFACE + settings + opened)

    def data_received(self, data: bytes) -> None:
        data, start = self._data + data, 0
        while len(data) - start >= 9:
            end = start + 9 + int.from_bytes(data[start : start + 3], "big")
            if len(data) < end:
                break
            self._take(data[start + 3], data[start + 4], data[start + 5 : start + 9], data[start + 9 : end])
            start = end
        self._data = data[start:]
        self.go_on()

    def _take(self, kind: int, flags: int, number: bytes, payload: bytes) -> None:
        stream = int.from_bytes(number, "big")
        if kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    self.first_bytes = value
            self.transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == WINDOW_UPDATE:
            grown = int.from_bytes(payload, "big")
            if stream:
                self.windows[stream] = self.windows.get(stream, 0) + grown
            else:
                self.window_bytes += grown
        elif kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.open_calls -= 1
            self.windows.pop(stream, None)

    def begin(self, method: str) -> tuple[int, bytes]:
        """Return a new call's stream, and the frame that begins it."""
        stream, self._next = self._next, self._next + 2
        self.open_calls += 1
        return stream, frame(HEADERS, END_HEADERS, stream, call_head(method))

    def go_on(self) -> None: ...


class Unary(Calling):
    """Calls with one message each, many at once."""

    def __init__(self, sent: bytes, method: str = "ModelInfer") -> None:
        super().__init__()
        self._sent, self._method = sent, method

    def go_on(self) -> None:
        size_bytes = CALLS_AT_ONCE * len(self._sent)
        if self.open_calls > CALLS_AT_ONCE // 2 or self.window_bytes < size_bytes:
            return
        self.window_bytes -= size_bytes
        calls = [self.begin(self._method) for _ in range(CALLS_AT_ONCE)]
        self.transport.write(b"".join(head + frame(DATA, END_STREAM, stream, self._sent) for stream, head in calls))


class Large(Calling):
    """Asks for one large output after another."""

    def go_on(self) -> None:
        if not self.open_calls:
            stream, head = self.begin("ModelInfer")
            self.transport.write(head + frame(DATA, END_STREAM, stream, asked("large", [float(LARGE_LENGTH)])))


class Streaming(Calling):
    """Streams of messages, each as full as the server lets it be."""

    def __init__(self, sent: bytes) -> None:
        super().__init__()
        self._sent = sent * (16_000 // len(sent))

    def go_on(self) -> None:
        while self.open_calls < STREAMS:
            stream, head = self.begin("ModelStreamInfer")
            self.windows[stream] = self.first_bytes
            self.transport.write(head)
        for stream in self.windows:
            while min(self.windows[stream], self.window_bytes) >= len(self._sent):
                self.transport.write(frame(DATA, 0, stream, self._sent))
                self.window_bytes -= len(self._sent)
                self.windows[stream] -= len(self._sent)


class HalfCalling(Calling):
    """Calls whose messages never end."""

    def go_on(self) -> None:
        while self.open_calls < HALF_CALLS - 6:
            stream, head = self.begin("ModelInfer")
            self.transport.write(head + frame(DATA, 0, stream, asked()[:-1]))


CALLING: dict[str, Callable[[], Calling]] = {
    "grpc_unary": lambda: Unary(asked()),
    "grpc_statistics": lambda: Unary(message(b""), "ModelStatistics"),
    "grpc_invalid": lambda: Unary(INVALID),
    "grpc_stream": lambda: Streaming(asked()),
    "grpc_stream_invalid": lambda: Streaming(INVALID),
    "grpc_stream_mixed": lambda: Streaming(asked() + 200 * INVALID),
    "grpc_large": Large,
}


# -- large outputs --------------------------------------------------------------------------------------------------


def large_tensor(*, is_binary: bool) -> bytes:
    inputs = [{"name": "input", "datatype": "FP64", "shape": [1, 1], "data": [float(LARGE_LENGTH)]}]
    outputs = [{"name": "output", "parameters": {"binary_data": is_binary}}]
    return post("/v2/models/large/infer", json.dumps({"inputs": inputs, "outputs": outputs}).encode())


# Requests that are sent once the answer before is read.
LARGE: dict[str, Callable[[], bytes]] = {
    "large_json": lambda: post("/large/predict", json.dumps({"input": [float(LARGE_LENGTH)]}).encode()),
    "large_json_tensor": lambda: large_tensor(is_binary=False),
    "large_tensor": lambda: large_tensor(is_binary=True),
    "large_block": lambda: block("large", [struct.pack("<d", LARGE_LENGTH)] * 3),
}


# -- large inputs ---------------------------------------------------------------------------------------------------


def long_row(application: str, datatype: str, number: bytes, count: int) -> bytes:
    described = {"name": "input", "datatype": datatype, "shape": [1, count]}
    text = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": len(number) * count}}]}).encode()
    head = f"inference-header-content-length: {len(text)}\r\n"
    return post(f"/v2/models/{application}/infer", text + number * count, head)


# Requests that are sent once the answer before is read.
LARGE_INPUTS: dict[str, Callable[[], bytes]] = {
    "large_rows": lambda: long_row("greedy", "FP64", struct.pack("<d", 1.5), ROW_NUMBERS),
    "many_numbers": lambda: long_row("many", "FP32", struct.pack("<f", 1.5), MANY_NUMBERS),
    "many_numbers_json": lambda: post("/many/predict", b'{"input": [' + b"1.5," * (MANY_NUMBERS - 1) + b"1.5]}"),
}


async def read_large(host: str, port: int, request: bytes) -> None:
    """Ask again and again, and read each answer as fast as possible before the next is asked for."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            try:
                while True:
                    writer.write(request)
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    left = int(head.partition(b"content-length: ")[2].split()[0])
                    while left:
                        left -= len(piece := await reader.read(min(left, READ_BYTES)))
                        if not piece:
                            raise ConnectionResetError
            finally:
                writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.1)


async def leave_unread(host: str, port: int) -> None:
    """Ask for large outputs, and read nothing of them."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
            try:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(LARGE["large_tensor"]())
                await asyncio.sleep(5.0)
            finally:
                writer.transport.abort()
        except OSError:
            await asyncio.sleep(0.1)


# -- clients that leave, and clients that wait ----------------------------------------------------------------------


async def leave(host: str, port: int) -> None:
    """Pipeline tensors of many rows, and leave before their answers, again and again."""
    request = tensor()
    while True:
        _, writer = await asyncio.open_connection(host, port)
        try:
            for _ in range(40):
                writer.write(request)
            await asyncio.sleep(0.5)
        finally:
            writer.transport.abort()


async def half(host: str, port: int, data: bytes) -> None:
    """Keep a request open that never ends; when the server ends it, begin another one."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(data)
                await reader.read()
            finally:
                writer.transport.abort()
        await asyncio.sleep(1.0)


def insecure() -> ssl.SSLContext:
    """TLS with whatever certificate the server shows, and each time by a whole handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def shake_hands(host: str, port: int) -> None:
    """Make one TLS connection after another, and ask nothing."""
    context = insecure()
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.transport.abort()
        except OSError:
            await asyncio.sleep(0.1)


async def keep(make: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
    """Keep a connection open; when the server ends it, open another one."""
    while True:
        with contextlib.suppress(OSError):
            transport, _ = await asyncio.get_running_loop().create_connection(make, host, port)
            try:
                while not transport.is_closing():
                    await asyncio.sleep(0.1)
            finally:
                transport.abort()
        await asyncio.sleep(0.1)


async def newcomers(host: str, port: int, seconds: float, context: ssl.SSLContext | None = None) -> str:
    answered, failed, longest_s = 0, 0, 0.0
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds

    async def come() -> None:
        nonlocal answered, failed, longest_s
        began_s = loop.time()
        try:
            async with asyncio.timeout(NEWCOMER_WITHIN_S):
                reader, writer = await asyncio.open_connection(host, port, ssl=context)
                try:
                    writer.write(post("/neighbour/predict", numbers()))
                    status = await reader.readline()
                finally:
                    # A TLS connection that is closed in order waits for the server's word, and outlives the loop.
                    writer.transport.abort()
            answered += b" 200 " in status
            failed += b" 200 " not in status
        except (OSError, TimeoutError):
            failed += 1
        longest_s = max(longest_s, loop.time() - began_s)

    async with asyncio.TaskGroup() as group:
        while loop.time() < end_s:
            group.create_task(come())
            await asyncio.sleep(NEWCOMER_EVERY_S)
    return f"{answered} {failed} {longest_s * 1000:.1f}"


def attacking(attack: str, host: str, port: int, connections: int) -> Iterator["asyncio.Task[None]"]:
    spawn = asyncio.get_running_loop().create_task
    half_body = post("/greedy/predict", bytes(HALF_BODY_BYTES))[:-1]
    half_head = b"POST /greedy/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"
    match attack:
        case "leaving":
            yield from (spawn(leave(host, port)) for _ in range(connections))
        case "half_bodies":
            yield from (spawn(half(host, port, half_body)) for _ in range(HOLDERS))
        case "half_requests":
            yield from (spawn(half(host, port, half_head)) for _ in range(HALF_REQUESTS))
        case "tls_handshakes":
            yield from (spawn(shake_hands(host, port)) for _ in range(8 * connections))
        case "tls_half":
            yield from (spawn(half(host, port, HALF_HELLO)) for _ in range(HALF_REQUESTS))
        case "grpc_half":
            yield from (spawn(keep(HalfCalling, host, port)) for _ in range(HOLDERS))
        case "large_unread":
            yield from (spawn(leave_unread(host, port)) for _ in range(4 * connections))
        case _ if attack in LARGE_INPUTS:
            request = LARGE_INPUTS[attack]()
            count = LARGE_ROWS if attack == "large_rows" else connections
            yield from (spawn(read_large(host, port, request)) for _ in range(count))
        case _ if attack in LARGE:
            yield from (spawn(read_large(host, port, LARGE[attack]())) for _ in range(connections))
        case _ if attack in CALLING:
            yield from (spawn(keep(CALLING[attack], host, port)) for _ in range(connections))
        case _:
            request = PIPELINED[attack]()
            chunk = request * max(CHUNK_BYTES // len(request), 1)
            yield from (spawn(keep(lambda: Pipelining(chunk), host, port)) for _ in range(connections))


# Those on a port that speaks TLS.
OF_TLS = ("tls_handshakes", "tls_half")
ATTACKS = (
    *PIPELINED,
    *CALLING,
    *LARGE,
    *LARGE_INPUTS,
    "large_unread",
    "leaving",
    "half_bodies",
    "half_requests",
    "grpc_half",
    *OF_TLS,
)
# Those whose number of connections is their own.
OF_ONE_CLIENT = ("large_rows", "half_bodies", "half_requests", "grpc_half", "tls_half")


async def main(attack: str, address: str, connections: int, seconds: float) -> None:
    context = insecure() if address.startswith("https://") else None
    host, _, port = address.removeprefix("https://").rpartition(":")
    if attack == "newcomers":
        print(await newcomers(host, int(port), seconds, context))
        return
    raise_limit()
    tasks = list(attacking(attack, host, int(port), connections))
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


if __name__ == "__main__":
    _, asked_attack, to, count, for_s = sys.argv
    uvloop.run(main(asked_attack, to, int(count), float(for_s)))
