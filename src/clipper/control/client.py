"""Sends one command to a worker over its control channel."""

import asyncio
from typing import TypeVar

from clipper.control.address import ControlAddress, UnixAddress
from clipper.control.messages import Command, Framer, decode_reply, encode
from clipper.errors import NotImplementedYet, ProtocolViolation

R = TypeVar("R")

_READ_BYTES = 64 * 1024


async def ask(address: ControlAddress, command: Command[R], timeout_s: float, message: bytes | None = None) -> R:
    """Send a command and return its reply. Each command has its own connection, so a slow reply holds up no other.

    Args:
        message: the command encoded, if that was done before, as for several workers.

    Raises:
        OSError: the worker cannot be reached, or (TimeoutError) does not answer in time.
        ProtocolViolation: the answer is not the command's reply.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await _connect(address)
        try:
            writer.write(encode(command) if message is None else message)
            return decode_reply(await _read_message(reader), command)
        finally:
            writer.transport.abort()


async def _connect(address: ControlAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, UnixAddress):
        return await asyncio.open_unix_connection(address.path)
    raise NotImplementedYet(f"{address}: the control channel does not use TCP yet")


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    framer = Framer()
    while data := await reader.read(_READ_BYTES):
        for body in framer.feed(data):
            return body
    raise ProtocolViolation("the worker closed the control channel without an answer")
