"""Sends commands to workers over their control channels."""

import asyncio
import socket
from typing import TypeVar

from clipper.control.address import ControlAddress, TcpAddress, UnixAddress
from clipper.control.identity import Secured, check_peer
from clipper.control.messages import Command, CommandRefused, Framer, decode_reply, encode
from clipper.errors import ProtocolViolation

R = TypeVar("R")

_READ_BYTES = 64 * 1024
# Unlike TCP, a unix socket refuses a connection at once when its backlog is full: dial again after this time.
_DIAL_AGAIN_S = 0.01
# Connections that are kept for each worker over TCP: a supervisor mostly has two commands under way. 64 peers with
# two each are half of the connections that a worker accepts.
MAX_FREE = 2
# Shorter than the time for which a worker tolerates silence, so that no command is sent on a connection that ends.
FREE_S = 10.0
# Certificates are checked when a connection is made. A worker ends a connection after twice this time.
LIFE_S = 1800.0


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connections:
    """Asks workers, and keeps connections over TCP for the next command.

    A handshake of TLS takes both ends a millisecond and more, a command on a kept connection a tenth of that. Over a
    unix socket each command has a connection of its own. A command never waits for a connection that another command
    uses, so a slow reply holds up no other.
    """

    def __init__(self) -> None:
        # The free connections, each with the time when it was made and the timer that drops it.
        self._free: dict[tuple[TcpAddress, Secured], list[tuple[Streams, float, asyncio.TimerHandle]]] = {}

    async def ask(
        self,
        address: ControlAddress,
        command: Command[R],
        timeout_s: float,
        message: bytes | None = None,
        secured: Secured | None = None,
    ) -> R:
        """Send a command, and return its reply.

        Args:
            message: the encoded command, if it was encoded before, as for several workers.
            secured: how the worker is dialled over TCP. Over a unix socket it is not needed.

        Raises OSError if the worker cannot be reached, if it does not answer in time (TimeoutError), or if one end does
        not trust the other's certificate; CommandRefused if the worker does not take this command from us;
        ProtocolViolation if the answer is not the command's reply, or if another worker than expected has that address.
        """
        key = None if isinstance(address, UnixAddress) or secured is None else (address, secured)
        async with asyncio.timeout(timeout_s):
            free = None if key is None else self._take(key)
            streams, made_s = free or (await _connect(address, secured), asyncio.get_running_loop().time())
            try:
                reply = await _exchange(streams, command, message)
            except CommandRefused:
                self._keep(key, streams, made_s)
                raise
            except BaseException:
                streams[1].transport.abort()
                raise
        self._keep(key, streams, made_s)
        return reply

    def close(self) -> None:
        for kept in self._free.values():
            for streams, _, timer in kept:
                timer.cancel()
                streams[1].transport.abort()
        self._free.clear()

    def _take(self, key: tuple[TcpAddress, Secured]) -> tuple[Streams, float] | None:
        while kept := self._free.get(key):
            streams, made_s, timer = kept.pop()
            timer.cancel()
            if not kept:
                del self._free[key]
            if not streams[0].at_eof() and not streams[1].transport.is_closing():
                return streams, made_s
            streams[1].transport.abort()
        return None

    def _keep(self, key: tuple[TcpAddress, Secured] | None, streams: Streams, made_s: float) -> None:
        loop = asyncio.get_running_loop()
        if key is None or len(self._free.get(key, ())) >= MAX_FREE or loop.time() - made_s > LIFE_S:
            streams[1].transport.abort()
            return
        self._free.setdefault(key, []).append((streams, made_s, loop.call_later(FREE_S, self._drop_oldest, key)))

    def _drop_oldest(self, key: tuple[TcpAddress, Secured]) -> None:
        kept = self._free[key]
        streams, _, _ = kept.pop(0)
        streams[1].transport.abort()
        if not kept:
            del self._free[key]


async def _exchange(streams: Streams, command: Command[R], message: bytes | None) -> R:
    reader, writer = streams
    writer.write(encode(command) if message is None else message)
    return decode_reply(await _read_message(reader), command)


async def _connect(address: ControlAddress, secured: Secured | None) -> Streams:
    if isinstance(address, UnixAddress):
        return await _dial_on_this_machine(address.path)
    if secured is None:
        raise PermissionError(f"{address} asks for a certificate, and this process has none: start it on that node")
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=secured.context)
    except UnicodeError as error:  # a name that DNS cannot have
        raise OSError(f"{address}: {error}") from error
    try:
        check_peer(writer.get_extra_info("ssl_object"), secured.expects)
    except ProtocolViolation:
        writer.transport.abort()
        raise
    return reader, writer


async def _dial_on_this_machine(path: str) -> Streams:
    while True:
        # A raw socket: asyncio takes a non-blocking socket that returned EAGAIN for a connected one.
        dialling = socket.socket(socket.AF_UNIX)
        dialling.setblocking(False)
        try:
            dialling.connect(path)
            return await asyncio.open_unix_connection(sock=dialling)
        except BlockingIOError:  # its backlog is full, so the worker exists
            dialling.close()
        except BaseException:
            dialling.close()
            raise
        await asyncio.sleep(_DIAL_AGAIN_S)


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    framer = Framer()
    while data := await reader.read(_READ_BYTES):
        for body in framer.feed(data):
            return body
    raise ProtocolViolation("the worker closed the control channel without an answer")
