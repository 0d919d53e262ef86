"""Replicas that answer at once and are no processes: thousands of them fit on any machine.

For the supervisor's pings they listen on one socket (``python -m benchmarks.scale.stubs SOCKET``), and each connection
says by its token whom it is for. Workers, of which each has a connection to every replica, have theirs in memory.
"""

import asyncio
import socket
import sys
from typing import Any

from clipper.containers.protocol.frames import Kind, Splitter
from clipper.containers.protocol.messages import (
    Welcome,
    decode_hello,
    decode_predict,
    encode_pong,
    encode_results,
    encode_welcome,
)
from clipper.open_files import raise_limit
from clipper.types import InputType

INPUT_TYPE = InputType.parse("float64[4]")


class Answers:
    """What a replica answers on one connection."""

    def __init__(self) -> None:
        self._splitter = Splitter()

    def to(self, data: bytes) -> bytes:
        answers = []
        for kind, frame_id, body in self._splitter.feed(data):
            if kind == Kind.HELLO:
                hello = decode_hello(body)
                model, _, version = hello.token.partition(":")
                answers.append(encode_welcome(Welcome(model, version, INPUT_TYPE, None, "stub", None, hello.version)))
            elif kind == Kind.PING:
                answers.append(encode_pong(frame_id, 0))
            elif kind == Kind.PREDICT:
                rows = decode_predict(body).rows
                answers.append(encode_results(frame_id, rows, b"\n".join([b"1"] * rows)))
        return b"".join(answers)


class StubProtocol(asyncio.Protocol):
    def __init__(self) -> None:
        self._answers = Answers()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answers.to(data))


class StubTransport:
    """A worker's connection to a replica, without a socket."""

    family = socket.AF_INET

    def __init__(self, connection: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._answers = Answers()

    def write(self, data: bytes) -> None:
        if answer := self._answers.to(bytes(data)):
            self._loop.call_soon(self._connection.data_received, answer)

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def get_extra_info(self, name: str) -> "StubTransport":
        return self

    def abort(self) -> None:
        self._loop.call_soon(self._connection.connection_lost, None)


async def connect(address: str, connection: Any, certificate: str) -> None:
    """In place of ``clipper.containers.link._connect``."""
    connection.connection_made(StubTransport(connection))


async def listen(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(StubProtocol, path, backlog=10_000)
    await server.serve_forever()


if __name__ == "__main__":
    raise_limit()
    asyncio.run(listen(sys.argv[1]))
