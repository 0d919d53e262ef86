"""Replicas that answer at once and are no processes: thousands of them fit on any machine.

For the supervisor's pings they listen on one socket (``python -m benchmarks.scale.stubs SOCKET``), and each connection
says by its token whom it is for. Workers, of which each is linked to every replica, have no sockets: their connections
are in memory (``connect``), or, where 64 of them are linked to 5,000 replicas each, there are none (``link_at_once``).
"""

import asyncio
import socket
import sys
from typing import Any

from clipper.base.open_files import raise_limit
from clipper.model.protocol.frames import Kind, Splitter
from clipper.model.protocol.messages import (
    Welcome,
    decode_hello,
    decode_predict,
    encode_pong,
    encode_results,
    encode_welcome,
)
from clipper.values.types import InputType
from clipper.worker.link import ReplicaLink

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

    def setsockopt(self, *option: int) -> None: ...

    def abort(self) -> None:
        self._loop.call_soon(self._connection.connection_lost, None)


async def connect(address: str, connection: Any, certificate: str) -> None:
    """In place of ``clipper.worker.link._connect``."""
    connection.connection_made(StubTransport(connection))


class NoConnection:
    """Of a link that nothing is sent over."""

    def abort(self) -> None: ...


NO_CONNECTION: Any = NoConnection()


def link_at_once(link: ReplicaLink) -> None:
    """In place of ``ReplicaLink.open``: the replica answers before anybody could wait, and is asked nothing."""
    link._connection = NO_CONNECTION
    link._settle_first_attempt()
    assert link._listener is not None
    link._listener.on_linked(Welcome(link._model.name, link._model.version, INPUT_TYPE, None, "stub"))


async def listen(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(StubProtocol, path, backlog=10_000)
    await server.serve_forever()


if __name__ == "__main__":
    raise_limit()
    asyncio.run(listen(sys.argv[1]))
