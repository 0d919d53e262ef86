"""TLS before a container: what callers send over TCP goes on to the container's unix socket, and back.

The front knows nothing of the container protocol: the container itself checks the token in HELLO. Everybody in the
cluster's network can dial the front. So a caller that the container has not answered gives way to new callers, the
oldest first, and costs the container nothing before it has sent something.
"""

import asyncio
import datetime
import errno
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clipper.base.tcp import end_when_cut
from clipper.base.tls.handshakes import Handshakes
from clipper.base.tls.material import TlsMaterial, server_context
from clipper.base.tls.transport import TlsTransport
from clipper.base.turn_budget import TurnBudget
from clipper.errors import ContainerFailed

# The most connections of a container.
MAX_CONNECTIONS = 256
# Handshakes are some of the connections, and are done in milliseconds.
MAX_HANDSHAKES = 64
# The time from when a caller is accepted until it sends something: callers send HELLO at once.
SILENCE_S = 10.0
_SWEEP_EVERY_S = 1.0
# How long a caller may take to read the last answer of an ending container. A container waits as long itself.
FLUSH_TIMEOUT_S = 5.0
# The interval between checks whether the container listens. Until then callers are refused, without a handshake.
LOOK_EVERY_S = 0.02

# Each direction of a connection buffers at most about two times this.
_READ_BYTES = 256 * 1024


class TlsFront:
    """The front of a container."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, container: Path) -> None:
        """Make a front. ``listener`` is bound but does not listen yet. The socket ``container`` need not exist yet."""
        self._listener = listener
        self._context = context
        self._container = container
        # The callers that the container has answered, and the others, in the order in which they were accepted.
        self._answered: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._unanswered: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def run(self) -> None:
        """Wait for the container's socket, then serve until cancelled."""
        while not self._container.is_socket():
            await asyncio.sleep(LOOK_EVERY_S)
        # Otherwise a caller whose network was cut would keep its connection for ever, and it dials again.
        end_when_cut(self._listener)
        loop = asyncio.get_running_loop()
        handshakes = Handshakes(self._context, TurnBudget(loop.call_soon, loop.time), MAX_HANDSHAKES)

        def make_connection() -> asyncio.Protocol:
            reader = asyncio.StreamReader(limit=_READ_BYTES)
            return TlsTransport(asyncio.StreamReaderProtocol(reader, self._accept), handshakes)

        server = await loop.create_server(make_connection, sock=self._listener)
        try:
            while True:
                await asyncio.sleep(_SWEEP_EVERY_S)
                handshakes.sweep()
        finally:
            server.close()
            for connection, writer in [*self._answered.items(), *self._unanswered.items()]:
                _end(connection, writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a caller, whose handshake has not begun yet."""
        if len(self._answered) + len(self._unanswered) >= MAX_CONNECTIONS:
            if not self._unanswered:
                writer.transport.abort()
                return
            oldest = next(iter(self._unanswered))
            _end(oldest, self._unanswered.pop(oldest))
        connection = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._unanswered[connection] = writer
        connection.add_done_callback(self._has_ended)

    def _has_ended(self, connection: "asyncio.Task[None]") -> None:
        self._answered.pop(connection, None)
        self._unanswered.pop(connection, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SILENCE_S):
                first = await reader.read(_READ_BYTES)
            if first:
                await self._pass_on(first, reader, writer)
        except OSError:
            pass  # the caller was silent or has gone, or the container is ending
        finally:
            writer.transport.abort()

    async def _pass_on(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None

        def answered() -> None:
            if connection in self._unanswered:
                self._answered[connection] = self._unanswered.pop(connection)

        inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._container), limit=_READ_BYTES)
        inner_writer.write(first)
        answers = asyncio.get_running_loop().create_task(_pump(inner_reader, writer, answered))
        requests = asyncio.get_running_loop().create_task(_pump(reader, inner_writer))
        try:
            await asyncio.wait([answers, requests], return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                # The container has closed the connection, e.g. over a wrong token: a caller that does not read gives
                # way.
                self._answered.pop(connection, None)
                self._unanswered[connection] = writer
                await _flush(writer)
        finally:
            answers.cancel()
            requests.cancel()
            # A caller that has gone takes no further answer, so the container need not write it.
            inner_writer.transport.abort()


def _end(connection: "asyncio.Task[None]", writer: asyncio.StreamWriter) -> None:
    # A task that was cancelled before it began closes nothing.
    writer.transport.abort()
    connection.cancel()


async def _pump(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, passed: Callable[[], None] = lambda: None
) -> None:
    """Pass bytes on until either side ends. ``passed`` is called before each piece."""
    try:
        while data := await source.read(_READ_BYTES):
            passed()
            target.write(data)
            await target.drain()
    except OSError:
        return  # a broken connection has ended, too


async def _flush(writer: asyncio.StreamWriter) -> None:
    """Send the rest, and close."""
    writer.close()
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await writer.wait_closed()
    except OSError:
        return


# Callers compare the certificate itself, and ignore its name and its time.
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clipper container")])
_VALID = datetime.timedelta(days=3650)


def make_identity() -> tuple[str, ssl.SSLContext]:
    """Make a new key; return a certificate for it in PEM, for callers, and a context that has both, for a front."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(_NAME, _NAME, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + _VALID)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.decode(), server_context(TlsMaterial(certificate, private))


def bind_in_range(host: str, ports: tuple[int, int]) -> socket.socket:
    """Bind a free port of a range, both ends included.

    The search begins anywhere, so that actors that start at once do not try the same ports. Raises ContainerFailed if
    none is free, and OSError if the address is not this machine's.
    """
    first, last = ports
    count = last - first + 1
    begin = random.randrange(count)
    for step in range(count):
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            # Without SO_REUSEADDR, with which two sockets that do not listen yet could have the same port.
            bound.bind((host, first + (begin + step) % count))
        except OSError as error:
            bound.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return bound
    raise ContainerFailed(f"no port of {first} to {last} is free on {host}: give a wider --ray-ports")
