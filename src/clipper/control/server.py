"""The worker's end of the control channel: a supervisor, old or new, or another worker dials it and sends commands."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from clipper.control.address import ControlAddress, TcpAddress
from clipper.control.messages import AnyCommand, AnyReply, Framer, decode_command, encode
from clipper.errors import ClipperError, NotImplementedYet

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024


class ControlServer:
    """Listens on a unix socket that only this user may dial. Several supervisors may dial it, even at once."""

    def __init__(self, answer: Callable[[AnyCommand], Awaitable[AnyReply]]) -> None:
        self._answer = answer
        self._listener: asyncio.Server | None = None

    async def listen(self, address: ControlAddress) -> None:
        """Listen, and replace a socket that a killed worker has left."""
        if isinstance(address, TcpAddress):
            raise NotImplementedYet(f"{address}: the control channel does not use TCP yet")
        Path(address.path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener = await asyncio.start_unix_server(self._serve, address.path)
        finally:
            os.umask(before)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer()
        try:
            while data := await reader.read(READ_BYTES):
                for body in framer.feed(data):
                    writer.write(encode(await self._answer(decode_command(body))))
                    await writer.drain()
        except (ClipperError, ConnectionError) as error:
            log.warning("control channel: %(error)s", {"error": error})
        except asyncio.CancelledError:
            pass  # the worker ends; up to Python 3.11 the streams would log a cancelled handler as an error
        finally:
            writer.close()
