"""Sends one command to a worker over its control channel."""

import asyncio
from typing import TypeVar

from clipper.control.address import ControlAddress, UnixAddress
from clipper.control.identity import Secured, check_peer
from clipper.control.messages import Command, Framer, decode_reply, encode
from clipper.errors import ProtocolViolation

R = TypeVar("R")

_READ_BYTES = 64 * 1024


async def ask(
    address: ControlAddress,
    command: Command[R],
    timeout_s: float,
    message: bytes | None = None,
    secured: Secured | None = None,
) -> R:
    """Send a command and return its reply. Each command has its own connection, so a slow reply holds up no other.

    Args:
        message: the command encoded, if that was done before, as for several workers.
        secured: how the worker is dialled over TCP. Over a unix socket it is not needed.

    Raises:
        OSError: the worker cannot be reached, or (TimeoutError) does not answer in time, or one of both does not trust
            the other's certificate.
        CommandRefused: the worker does not take this command from us.
        ProtocolViolation: the answer is not the command's reply, or another worker than expected has that address.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await _connect(address, secured)
        try:
            if secured is not None:
                check_peer(writer.get_extra_info("ssl_object"), secured.expects)
            writer.write(encode(command) if message is None else message)
            return decode_reply(await _read_message(reader), command)
        finally:
            writer.transport.abort()


async def _connect(
    address: ControlAddress, secured: Secured | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, UnixAddress):
        return await asyncio.open_unix_connection(address.path)
    if secured is None:
        raise PermissionError(f"{address} asks for a certificate, and this process has none: start it on that node")
    try:
        return await asyncio.open_connection(address.host, address.port, ssl=secured.context)
    except UnicodeError as error:  # a name that DNS cannot have
        raise OSError(f"{address}: {error}") from error


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    framer = Framer()
    while data := await reader.read(_READ_BYTES):
        for body in framer.feed(data):
            return body
    raise ProtocolViolation("the worker closed the control channel without an answer")
