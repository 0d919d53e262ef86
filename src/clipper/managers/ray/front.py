"""TLS before a container: what callers send over TCP goes on to the container's unix socket, and back.

So a container in any language is reached over TLS, and its own socket stays closed to other users of its node. The
front knows nothing of the container protocol: the container itself checks the token in HELLO.
"""

import asyncio
import socket
import ssl
from pathlib import Path

from clipper.tcp import end_when_cut

# As many as a container takes.
MAX_CONNECTIONS = 256
HANDSHAKE_TIMEOUT_S = 5.0
# How long a caller may take to read the last answer of a container that ends. A container waits as long itself.
FLUSH_TIMEOUT_S = 5.0
# How often to look whether the container listens. Until it does, callers are refused, which costs nobody a handshake.
LOOK_EVERY_S = 0.02

# The most that each direction of a connection holds is some two of these.
_READ_BYTES = 256 * 1024


class TlsFront:
    """The front of one container."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, container: Path) -> None:
        """
        Args:
            listener: bound, and not listening yet.
            context: with the certificate to show.
            container: the path of the container's socket, which need not exist yet.
        """
        self._listener = listener
        self._context = context
        self._container = container
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Wait for the container's socket, then serve until cancelled."""
        while not self._container.is_socket():
            await asyncio.sleep(LOOK_EVERY_S)
        # A caller whose network was cut would keep its connection for ever, and callers dial again.
        end_when_cut(self._listener)
        server = await asyncio.start_server(
            self._accept,
            sock=self._listener,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            limit=_READ_BYTES,
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        connection = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._container), limit=_READ_BYTES)
        except OSError:
            writer.transport.abort()  # the container is ending
            return
        answers = asyncio.get_running_loop().create_task(_pump(inner_reader, writer))
        requests = asyncio.get_running_loop().create_task(_pump(reader, inner_writer))
        try:
            await asyncio.wait([answers, requests], return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                await _flush(writer)
        finally:
            answers.cancel()
            requests.cancel()
            # A caller that has gone takes no answer any more, so the container need not write it.
            inner_writer.transport.abort()
            writer.transport.abort()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes until either side ends."""
    try:
        while data := await source.read(_READ_BYTES):
            target.write(data)
            await target.drain()
    except OSError:
        return  # a connection that breaks has ended, too


async def _flush(writer: asyncio.StreamWriter) -> None:
    """Send what is left, and close."""
    writer.close()
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await writer.wait_closed()
    except OSError:
        return
