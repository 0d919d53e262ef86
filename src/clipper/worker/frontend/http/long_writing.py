"""Writes a long answer in pieces, as its client reads it, beside the worker's other work.

Otherwise a client that reads as fast as the worker writes would get its whole answer in a turn of the loop, and several
such clients would block the loop.
"""

import asyncio
from collections import deque
from typing import Protocol

from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.long_work import Steps


class LongWriter(Protocol):
    """A connection that writes a long answer.

    Attributes:
        transport: the transport that it writes to.
        writes_long: whether it is writing a long answer.
        is_paused: whether its client does not read.
    """

    transport: asyncio.Transport
    writes_long: bool
    is_paused: bool

    def flush(self) -> None:
        """Go on after a long answer, or after a while in which the client did not read."""

    def look_at_untaken(self) -> None:
        """Count the answers that the client has not read."""


def is_written(port: Port, connection: LongWriter, exchange: Exchange) -> bool:
    """Return whether the whole of the long answer next in turn is written. If it is not, write more of it soon."""
    rest, transport = exchange.rest, connection.transport
    if rest is None:
        return True
    response, exchange.response = exchange.response, b""
    if response:  # the first time
        rest_bytes = exchange.unwritten_bytes
        head = port.fitting(connection, response, exchange.closes, exchange.has_body, rest_bytes)
        if head is not response:  # an error in its place
            rest.clear()
        if exchange.note is not None:
            head = port.conclude(exchange.note, head, exchange.unwritten_bytes)
            exchange.note = None
        if not transport.is_closing():
            transport.write(head)
    if transport.is_closing():  # the client has left
        port.work.do(dropped(rest))
        exchange.rest = rest = deque()
    if not rest:
        exchange.rest = None
        port.freed_large_body = True
        return True
    connection.look_at_untaken()
    if not connection.writes_long and not connection.is_paused:
        connection.writes_long = True
        port.work.do(_write(connection, exchange))
    return False


def give_up(port: Port, exchange: Exchange) -> None:
    """End a request whose client has left."""
    exchange.cancel()
    if exchange.rest:
        port.work.do(dropped(exchange.rest))
    if exchange.note is not None:
        port.conclude(exchange.note, b"")


def dropped(rest: deque[bytes | memoryview]) -> Steps:
    """Free the rest of a long answer, in steps: freeing 200 MB at once would take tens of milliseconds."""
    while rest:
        rest.popleft()
        yield


def _write(connection: LongWriter, exchange: Exchange) -> Steps:
    rest, transport = exchange.rest, connection.transport
    while rest and not connection.is_paused and not transport.is_closing():
        transport.write(rest.popleft())
        yield
    connection.writes_long = False
    if not transport.is_closing():  # else the connection is lost, or will be
        connection.flush()
