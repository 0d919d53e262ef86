import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from clipper.containers.protocol.frames import HEADER, Kind, Splitter
from clipper.containers.protocol.messages import Welcome, encode_error, encode_pong, encode_welcome
from clipper.errors import ProtocolViolation
from clipper.managers.probe import MAX_REPLY_BYTES, Probe
from clipper.snapshot import ReplicaAddress
from clipper.types import DType, InputType

WELCOME = Welcome("m", "1", InputType(DType.FLOAT64), None, "test")


def pong(kind: int, frame_id: int) -> bytes:
    return encode_welcome(WELCOME) if kind == Kind.HELLO else encode_pong(frame_id, 1000 * frame_id)


def against(path: Path, reply: Callable[[int, int], bytes], test: Callable[[ReplicaAddress], Awaitable[None]]) -> None:
    """Run ``test`` with the address of a container that answers each frame by ``reply``; nothing closes."""

    callers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.add(asyncio.current_task())  # type: ignore[arg-type]
        splitter = Splitter()
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while data := await reader.read(4096):
                for kind, frame_id, _ in splitter.feed(data):
                    if not (answer := reply(kind, frame_id)):
                        return
                    writer.write(answer)

    async def run() -> None:
        socket = str(path / "c.sock")
        async with await asyncio.start_unix_server(serve, socket):
            await test(ReplicaAddress("m:1#1.g1", f"unix:{socket}"))
            await asyncio.wait(callers)  # a probe that is closed, or failed to open, has hung up

    asyncio.run(run())


def test_hello_and_pings(tmp_path: Path) -> None:
    async def test(address: ReplicaAddress) -> None:
        with contextlib.closing(await Probe.open(address, 10)) as probe:
            assert probe.welcome == WELCOME
            # The first ping was part of opening.
            assert [await probe.ping(10), await probe.ping(10)] == [2000, 3000]

    against(tmp_path, pong, test)


def after_hello(answer: bytes) -> Callable[[int, int], bytes]:
    return lambda kind, _: encode_welcome(WELCOME) if kind == Kind.HELLO else answer


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (lambda *_: encode_error(0, "go away"), "refuses our HELLO: go away"),
        (lambda *_: encode_pong(0, 0), "HELLO with PONG"),
        (lambda *_: b"HTTP/1.1 400 Bad Request\r\n\r\n", "not of protocol 1"),
        (lambda *_: HEADER.pack(MAX_REPLY_BYTES + 1, Kind.WELCOME, 0, 0, 0), "65537 bytes"),
        (after_hello(encode_pong(99, 0)), "PING 1 with PONG 99"),
        (after_hello(encode_error(1, "no")), "PING 1 with ERROR"),
    ],
)
def test_a_container_that_speaks_wrongly(tmp_path: Path, reply: Callable[[int, int], bytes], complaint: str) -> None:
    async def test(address: ReplicaAddress) -> None:
        with pytest.raises(ProtocolViolation, match=complaint):
            await Probe.open(address, 10)

    against(tmp_path, reply, test)


def test_a_container_that_closes_or_is_silent_or_is_not_there(tmp_path: Path) -> None:
    async def closes(address: ReplicaAddress) -> None:
        with pytest.raises(ConnectionResetError):
            await Probe.open(address, 10)

    async def is_silent(address: ReplicaAddress) -> None:
        with pytest.raises(TimeoutError):
            await Probe.open(address, 0.05)
        with pytest.raises(FileNotFoundError):
            await Probe.open(ReplicaAddress(address.id, address.address + "x"), 10)

    against(tmp_path, lambda *_: b"", closes)
    against(tmp_path, lambda *_: HEADER.pack(4, Kind.WELCOME, 0, 0, 0), is_silent)
