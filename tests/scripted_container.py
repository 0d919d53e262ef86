"""A container that answers each frame by a script: for what asks a container one thing after the other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from clipper.control.snapshot import ReplicaAddress
from clipper.model.protocol.frames import Kind, Splitter
from clipper.model.protocol.messages import Welcome, encode_pong, encode_welcome
from clipper.values.types import DType, InputType

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
