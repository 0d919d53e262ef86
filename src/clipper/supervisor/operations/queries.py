"""Passes an operator's trial queries from the management port to the query port."""

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import quote

from clipper.api.server.operations import Call
from clipper.base.http1 import Address, Answer, AnswerReader, BadAnswer, Request
from clipper.base.tls.trust import ClientTls, Trust
from clipper.errors import MalformedRequest, Overloaded, TooLarge, Unavailable

# People try applications; programs use the query port itself. Each call takes several times the bytes of its answer.
MAX_AT_ONCE = 8
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# An SLO may be longer, but a person who tries an application does not wait longer.
TIMEOUT_S = 100.0
_READ_BYTES = 256 * 1024


class Queries:
    """The supervisor's client of the query port: each call has a connection of its own."""

    def __init__(self, query_url: str, certificate: Path) -> None:
        """Make a client. ``certificate``: the file with the only certificate to trust, if the port speaks TLS."""
        self._address = Address.parse(query_url)
        self._certificate = certificate
        self._running = 0

    async def ask(self, application: str, call: Call, body: bytes, key: str | None) -> tuple[int, bytes]:
        """Ask, and return the port's status and its answer, which is JSON, also if it is an error.

        Raises:
            MalformedRequest: the key cannot be a key.
            Overloaded: too many calls are under way.
            TooLarge: the answer is larger than is passed on.
            Unavailable: there is no answer.
        """
        if self._running >= MAX_AT_ONCE:
            raise Overloaded(
                f"{MAX_AT_ONCE} calls of applications by way of the management port are under way, the most that are "
                "allowed: try again later, or ask the query port itself"
            )
        if key is not None and not (key.isascii() and key.isprintable()):
            raise MalformedRequest(
                "clipper-api-key has characters that no key has: expected letters, digits or ._~+/=-"
            )
        headers = "connection: close\r\ncontent-type: application/json\r\n"
        headers += "" if key is None else f"authorization: Bearer {key}\r\n"
        request = Request("POST", f"/{quote(application, safe='')}/{call}", (body,), headers)
        self._running += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._exchange(request.encode(self._address))
        except TimeoutError:
            raise Unavailable(f"the query port did not answer within {TIMEOUT_S:g} s") from None
        # Errors of TLS are OSErrors, too.
        except (OSError, BadAnswer) as error:
            raise Unavailable(
                f"the query port at {self._address.url} does not answer: {error}; with --tls-client-ca it answers only "
                "clients that show a certificate, and this port has none"
            ) from error
        finally:
            self._running -= 1
        return answer.status, answer.body

    async def _exchange(self, request: bytes) -> Answer:
        address = self._address
        tls = ClientTls(Trust(pinned=self._certificate)).context if address.is_tls else None
        stream, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
        try:
            writer.write(request)
            reader, received_bytes = AnswerReader(), 0
            while data := await stream.read(_READ_BYTES):
                received_bytes += len(data)
                if received_bytes > MAX_ANSWER_BYTES:
                    raise TooLarge(f"the answer is over {MAX_ANSWER_BYTES} bytes: ask the query port itself")
                if (answer := reader.feed(data)) is not None:
                    return answer
            raise ConnectionResetError("it closed the connection without a whole answer")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
