"""Tries of ``make fuzz`` under TLS: records, handshakes and requests that are nearly right, made of a number alone."""

import asyncio
import contextlib
import io
import ssl
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from clipper.base.tls.handshakes import Handshakes
from clipper.base.tls.material import read_material, server_context
from clipper.base.tls.transport import TlsTransport
from clipper.worker.frontend.http.connection import Connection
from clipper.worker.frontend.http.port import Port
from tests.certificates import Authority
from tests.serving import read_response
from tests.worker.frontend.fake_transport import Echo, FakeTransport, standing_port
from tests.worker.frontend.fuzz_front import garbled_requests
from tests.worker.frontend.http_calls import ECHO, HELLO, cut
from tests.worker.frontend.mutations import mutated, random_edits

# Heads of records, with versions and lengths that are right and wrong; alerts; what changes keys; what a browser says.
FRAGMENTS = [b"\x16\x03\x01", b"\x17\x03\x03", b"\x15\x03\x03\x00\x02\x01\x00", b"\x15\x03\x03\x00\x02\x02\x28"]
FRAGMENTS += [b"\x14\x03\x03\x00\x01\x01", b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\x00\x00", b"\x16\x03\x03\x40\x01"]
FRAGMENTS += [
    b"\x18\x03\x03\x00\x03\x01\x40\x00",
    b"\x80\x2e\x01\x00\x02",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0" * 5,
    b"\xff",
]
# Flights that a client needs for a handshake; and pieces that its bytes come in.
MAX_FLIGHTS, MAX_CUTS = 6, 6


class Client:
    """A connection by TLS to a server, without sockets."""

    def __init__(self, port: Port, handshakes: Handshakes, trust: ssl.SSLContext) -> None:
        self.socket, self.transport = FakeTransport(), TlsTransport(Connection(port), handshakes)
        self.transport.connection_made(self.socket)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trust.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._is_open = False

    def say(self, text: bytes) -> bytes:
        """The next flight: of the handshake, and, once that is done, ``text``."""
        self._incoming.write(bytes(self.socket.written))
        self.socket.written.clear()
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            self._tls.write(text)
        return self._outgoing.read()

    async def send(self, parts: list[bytes]) -> None:
        """As an event loop does: a part is read only while reading is not paused."""
        for part in parts:
            for _ in range(1000):
                if not self.socket.is_paused or self.socket.is_closed:
                    break
                await asyncio.sleep(0)
            assert not self.socket.is_paused or self.socket.is_closed, "reading never resumed"
            if self.socket.is_closed:
                return
            self.transport.data_received(part)
        for _ in range(3):
            await asyncio.sleep(0)

    def read(self) -> bytes:
        self._incoming.write(bytes(self.socket.written))
        self.socket.written.clear()
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return self._tls.read(1 << 20)
        return b""

    def leave(self, *, politely: bool) -> None:
        if politely:
            self.transport.eof_received()
        self.transport.connection_lost(None)


def try_tls(number: int) -> None:
    """Whatever comes in place of a handshake or a record ends that connection at most."""
    random = Random(number)
    asyncio.run(_garble(random))


async def _garble(random: Random) -> None:
    server_side, trust = _contexts()
    port = standing_port()
    port.serve({b"/echo/predict": Echo()})
    handshakes = Handshakes(server_side, port.turn)
    client = Client(port, handshakes, trust)
    wrong_flight = random.randrange(MAX_FLIGHTS)
    for flight in range(MAX_FLIGHTS):
        try:
            data = client.say(ECHO if random.random() < 0.5 else garbled_requests(random))
        except ssl.SSLError:  # it was told so, in a way that a client understands
            break
        if flight == wrong_flight:
            data = mutated(data, random_edits(random, FRAGMENTS))
        await client.send(cut(data, [random.randrange(1 << 16) for _ in range(random.randint(0, MAX_CUTS))]))
        if client.socket.is_closed:
            break
    client.leave(politely=random.random() < 0.5)
    after = Client(port, handshakes, trust)
    answer = b""
    for _ in range(MAX_FLIGHTS):
        answer = answer or after.read()
        if not answer:
            await after.send([after.say(ECHO)])
    assert read_response(io.BytesIO(answer)).body == HELLO
    assert (len(port.members), port.budget.held_bytes, len(handshakes)) == (1, 0, 0)


@cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        server_side = server_context(read_material(authority.issue("server").paths))
        return server_side, ssl.create_default_context(cafile=authority.certificate)


TRIES = {"tls": try_tls}
