"""Clients that do not behave: some come for one query, some go in the middle, some never read the answers."""

import asyncio
import random
from contextlib import suppress
from typing import cast

from benchmarks.harness.load import post
from benchmarks.soak.streams import LARGE_WIDTH

COME_EVERY_S = 0.5
ANSWER_WITHIN_S = 10.0
# Answers of some 600 KB each: more than a connection's buffers hold.
UNREAD = 16
NEVER_READ_FOR_S = 45.0
NEVER_READ_EVERY_S = 30.0


async def come_and_go(host: str, port: int) -> None:
    """A connection for each query; every fourth is left half way."""
    request = post("/steady/predict", b'{"input":[0.5,0.5]}')
    number = 0
    while True:
        await asyncio.sleep(random.expovariate(1 / COME_EVERY_S))
        number += 1
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_connection(host, port)
                if number % 4:
                    writer.write(request)
                    await reader.readuntil(b"\r\n\r\n")
                else:
                    writer.write(request[: random.randrange(len(request))])
                writer.transport.abort()


async def never_read(host: str, port: int) -> None:
    """Ask for much, and read nothing of it, two or so at any time."""
    numbers = ",".join("0.123456789" for _ in range(LARGE_WIDTH))
    requests = post("/large/predict", f'{{"input":[{numbers}]}}'.encode()) * UNREAD
    held: set[asyncio.Task[None]] = set()
    try:
        while True:
            task = asyncio.create_task(_hold(host, port, requests))
            held.add(task)
            task.add_done_callback(held.discard)
            await asyncio.sleep(NEVER_READ_EVERY_S)
    finally:
        for task in held:
            task.cancel()


async def _hold(host: str, port: int, requests: bytes) -> None:
    with suppress(OSError):
        # A transport that is not asked to read: a stream's reader would take what comes.
        transport, _ = await asyncio.get_running_loop().create_connection(_Unread, host, port)
        try:
            transport.write(requests)
            await asyncio.sleep(NEVER_READ_FOR_S)
        finally:
            transport.abort()


class _Unread(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()  # uvloop's is one in all but name
