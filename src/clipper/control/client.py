"""Sends one command to a worker over its control channel."""

import asyncio
from typing import TypeVar

from clipper.control.messages import Command, Framer, decode_reply, encode
from clipper.errors import ProtocolViolation

R = TypeVar("R")

_READ_BYTES = 64 * 1024


async def ask(path: str, command: Command[R], timeout_s: float, message: bytes | None = None) -> R:
    """Send a command and return its reply. Each command has its own connection, so a slow reply holds up no other.

    Args:
        message: the command encoded, if that was done before, as for several workers.

    Raises:
        OSError: the worker cannot be reached, or (TimeoutError) does not answer in time.
        ProtocolViolation: the answer is not the command's reply.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(encode(command) if message is None else message)
            return decode_reply(await _read_message(reader), command)
        finally:
            writer.transport.abort()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    framer = Framer()
    while data := await reader.read(_READ_BYTES):
        for body in framer.feed(data):
            return body
    raise ProtocolViolation("the worker closed the control channel without an answer")
