"""The worker's end of the control channel, which supervisors, old or new, and other workers dial to send commands."""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import cast

from clipper.base.tcp import end_when_cut
from clipper.base.tls.handshakes import Handshake, Handshakes
from clipper.base.tls.transport import TlsTransport
from clipper.base.turn_budget import TurnBudget
from clipper.control.address import ControlAddress, TcpAddress
from clipper.control.difference import EPOCH_BITS
from clipper.control.identity import IdentityFile, PeerName, certified_name
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    Apply,
    ApplyDifference,
    Drain,
    Framer,
    GetStatistics,
    Observe,
    Refused,
    decode_command,
    encode,
)
from clipper.errors import ClipperError, Forbidden, InvalidArgument, ProtocolViolation

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
# The bounds below are for TCP, which untrusted clients can reach. Each of 64 workers and a supervisor has a few
# commands under way. A container accepts as many connections.
MAX_CONNECTIONS = 256
# Untrusted clients can hold at most this many handshakes; a new one displaces the one that has kept the server waiting
# longest. ``tls.handshakes`` limits their time.
MAX_HANDSHAKES = 64
# A caller sends its command without a pause and reads the answer. Between two commands it keeps its connection for a
# shorter time than this.
SILENCE_S = 15.0
# Certificates are checked when a connection is made, so connections are replaced now and then.
LIFE_S = 3600.0
# Bound on incomplete messages from other workers. A supervisor's do not count, so that no worker can block a
# supervisor.
MAX_PARTIAL_BYTES = 128 * 1024 * 1024
_SWEEP_EVERY_S = 1.0
# The commands that workers may send: feedback that came to the wrong worker, and a request for counts, which the Open
# Inference Protocol reports over all workers.
_OF_WORKERS = (Observe, GetStatistics)


class Access:
    """Decides which commands a worker takes. ``heard``: the latest supervisor's epoch that it obeyed; 0 before."""

    def __init__(self, heard: int = 0) -> None:
        self.heard = heard

    def admit(self, caller: PeerName | None, command: AnyCommand) -> None:
        """Check that a caller may send a command, and note the epoch for which it speaks. ``caller``: the name in its
        certificate; None over a unix socket, which only this user may dial. Raises Forbidden if the caller may not send
        it. The message has the caller's name.
        """
        if caller is not None and caller.role == "worker" and not isinstance(command, _OF_WORKERS):
            raise Forbidden(f"{caller} may not send {type(command).__name__}: only a supervisor may")
        epoch = _epoch_of(command)
        if epoch is None:
            if caller is not None and isinstance(command, Drain):
                raise Forbidden(f"{caller} has to say for which epoch it sends Drain")
            return
        who = "the supervisor on this machine" if caller is None else str(caller)
        if caller is not None and epoch > caller.number:
            raise Forbidden(f"{who} may not speak for epoch {epoch}")
        # Over a unix socket an old snapshot is answered with the generation in force: so a supervisor whose registry
        # was restored learns that its workers are ahead.
        if epoch < self.heard and (caller is not None or isinstance(command, Drain)):
            raise Forbidden(
                f"{who} sent {type(command).__name__} for epoch {epoch}, and this worker obeys epoch {self.heard}"
            )
        self.heard = max(self.heard, epoch)


def _epoch_of(command: AnyCommand) -> int | None:
    """Return the epoch of the supervisor that sends a command; None if it changes nothing, or states no epoch."""
    match command:
        case Apply(snapshot=told) | ApplyDifference(difference=told):
            return told.generation >> EPOCH_BITS
        case Drain(epoch=epoch):
            return epoch
        case _:
            return None


class ControlHandshakes(Handshakes):
    """Handshakes of the control channel. A failure is logged with the caller's address, its only name."""

    def fail(self, handshake: Handshake, why: str) -> None:
        peer = cast(TlsTransport, handshake).get_extra_info("peername") or ("?", "?")
        super().fail(handshake, f"{why} (on the control channel, from {peer[0]}:{peer[1]})")


class ControlServer:
    """Listens on a unix socket that only this user may dial, or on TCP, where callers have to show a certificate.

    Several supervisors may dial it, even at once: ``Access`` decides which one it obeys.
    """

    def __init__(
        self, answer: Callable[[AnyCommand], Awaitable[AnyReply]], heard: int = 0, turn: TurnBudget | None = None
    ) -> None:
        """
        Args:
            heard: the latest epoch that this worker obeyed before it was started again.
            turn: the budget of the loop's turns, on which handshakes over TCP draw; None if nothing else does.
        """
        self._answer = answer
        self._turn = turn
        self._access = Access(heard)
        self._listener: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._connections = 0
        self._partial: set[Framer] = set()

    async def listen(self, address: ControlAddress, identity: IdentityFile | None = None) -> None:
        """Listen, and replace a socket that a killed worker has left.

        Raises OSError if the address cannot be bound, and InvalidArgument if it is on TCP and there is no identity.
        ``identity``: the certificate that is shown over TCP.
        """
        if isinstance(address, TcpAddress):
            if identity is None:
                raise InvalidArgument(f"expected an identity for {address}: over TCP a worker shows a certificate")
            await self._listen_on_tcp(address, identity)
            return
        Path(address.path).unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX)
        try:
            # Nothing may be awaited here: the umask belongs to the whole process.
            before = os.umask(0o177)
            try:
                bound.bind(address.path)
            finally:
                os.umask(before)
            self._listener = await asyncio.start_unix_server(self._serve_own, sock=bound)
        except BaseException:
            bound.close()
            raise

    @property
    def port(self) -> int:
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Accept no more connections; open connections go on."""
        if self._listener is not None:
            self._listener.close()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _listen_on_tcp(self, address: TcpAddress, identity: IdentityFile) -> None:
        loop = asyncio.get_running_loop()
        turn = self._turn or TurnBudget(loop.call_soon, loop.time)
        handshakes = ControlHandshakes(identity.contexts.listening, turn, MAX_HANDSHAKES)

        def make_connection() -> asyncio.Protocol:
            reader = asyncio.StreamReader()
            serve = partial(self._serve_stranger, handshakes)
            return TlsTransport(asyncio.StreamReaderProtocol(reader, serve), handshakes)

        self._listener = await loop.create_server(make_connection, address.host, address.port)
        for listening in self._listener.sockets:
            # Otherwise a caller whose network was cut would keep its connection while its command runs.
            end_when_cut(listening)
        self._sweeping = loop.create_task(self._sweep(handshakes, identity))

    async def _sweep(self, handshakes: Handshakes, identity: IdentityFile) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            handshakes.sweep()
            handshakes.context = identity.contexts.listening

    async def _serve_own(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a caller on the unix socket: a process of this user."""
        framer = Framer()
        try:
            while data := await reader.read(READ_BYTES):
                await self._take(framer, data, writer, None)
        except (ClipperError, ConnectionError) as error:
            log.warning("control channel: %(error)s", {"error": error})
        except asyncio.CancelledError:
            pass  # the worker ends; up to Python 3.11 the streams would log a cancelled handler as an error
        finally:
            writer.close()

    async def _serve_stranger(
        self, handshakes: Handshakes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a caller over TCP, from when its connection is accepted: its handshake may never complete."""
        self._connections += 1
        framer, caller = Framer(), None
        loop = asyncio.get_running_loop()
        end_s = loop.time() + LIFE_S
        who = "{}:{}".format(*writer.get_extra_info("peername") or ("?", "?"))
        try:
            if self._connections > MAX_CONNECTIONS:
                # This counts as a failed handshake, whose log is rate-limited.
                handshakes.fail(cast(TlsTransport, writer.transport), f"there are {MAX_CONNECTIONS} connections")
                return
            while loop.time() < end_s:
                async with asyncio.timeout(SILENCE_S):
                    data = await reader.read(READ_BYTES)
                tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
                if not data or tls is None:
                    break  # it has gone, or never got through the handshake
                if caller is None:
                    caller = certified_name(tls.getpeercert(), time.time())
                    who = f"{caller} at {who}"
                await self._take(framer, data, writer, caller)
        except TimeoutError:
            if len(framer):
                log.warning(
                    "control channel: %(address)s was silent for %(wait_s)g s", {"address": who, "wait_s": SILENCE_S}
                )
        except (ClipperError, OSError) as error:
            if caller is None and isinstance(error, OSError):
                # Anybody can cause this at any rate: so it counts as a failed handshake, whose log is rate-limited.
                handshakes.fail(cast(TlsTransport, writer.transport), str(error))
            else:
                log.warning("control channel: %(address)s was refused: %(error)s", {"address": who, "error": error})
        except asyncio.CancelledError:
            pass  # as above
        finally:
            self._connections -= 1
            self._partial.discard(framer)
            writer.transport.abort()

    async def _take(self, framer: Framer, data: bytes, writer: asyncio.StreamWriter, caller: PeerName | None) -> None:
        for body in framer.feed(data):
            command = decode_command(body)
            try:
                self._access.admit(caller, command)
            except Forbidden as error:
                log.warning("control channel: %(error)s", {"error": error})
                reply: AnyReply | Refused = Refused(str(error))
            else:
                reply = await self._answer(command)
            writer.write(encode(reply))
            async with asyncio.timeout(None if caller is None else SILENCE_S):
                await writer.drain()
        if caller is not None and caller.role == "worker":
            self._partial.add(framer)
            if sum(map(len, self._partial)) > MAX_PARTIAL_BYTES:
                raise ProtocolViolation(f"messages under way take more than {MAX_PARTIAL_BYTES} bytes")
