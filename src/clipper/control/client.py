"""Asks a worker one thing over its control channel."""

import asyncio

from clipper.control.messages import Command, Framer, Reply, decode_reply, encode
from clipper.errors import ProtocolViolation

_READ_BYTES = 64 * 1024


async def ask(path: str, command: Command, timeout_s: float) -> Reply:
    """Send a command on a connection of its own, so that a slow answer holds up no other, and return the answer.

    Raises:
        OSError: the worker cannot be reached, or (TimeoutError) does not answer in time.
        ProtocolViolation: its answer is not one.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(encode(command))
            return decode_reply(await _read_message(reader))
        finally:
            writer.transport.abort()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    framer = Framer()
    while data := await reader.read(_READ_BYTES):
        for body in framer.feed(data):
            return body
    raise ProtocolViolation("the worker closed the control channel without an answer")
