"""Sends spans on a thread. A receiver that hangs or is away costs spans, which are counted, but delays no query."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from clipper.base.background import Background
from clipper.base.extras import has_otel
from clipper.errors import InvalidArgument
from clipper.worker.telemetry.spans import Span

# Spans that wait to be sent: some MB. Further spans are dropped.
MAX_WAITING_SPANS = 8192
# The most spans in one message, and how long fewer of them may wait for more.
SPANS_PER_MESSAGE = 512
SEND_EVERY_S = 1.0
# A stop waits this long for the last message. Spans that are not sent by then are dropped.
CLOSE_TIMEOUT_S = 2.0


class Sender(Protocol):
    """Sends spans to a receiver: ``otlp_sender.OtlpSender``, whose libraries are an extra."""

    def send(self, spans: Sequence[Span], began_s: float) -> None:
        """Send spans on the exporter's thread until the receiver takes them. Their clock was 0 at ``began_s``."""

    def close(self) -> None:
        """Give up the message under way, as soon as possible. Called on another thread."""


class Exporter(Background[Span]):
    """Sends spans to a receiver, many in one message."""

    def __init__(self, sender: Sender) -> None:
        super().__init__(
            "send spans",
            most=MAX_WAITING_SPANS,
            at_once=SPANS_PER_MESSAGE,
            gather_s=SEND_EVERY_S,
            close_s=CLOSE_TIMEOUT_S,
        )
        self._sender = sender

    def do(self, items: Sequence[Span]) -> None:
        self._sender.send(items, time.time() - time.monotonic())

    def give_up(self) -> None:
        self._sender.close()


def open_exporter(endpoint: str | None, instance: str, environ: Mapping[str, str]) -> Exporter | None:
    """Return an exporter to an OTLP receiver; None if there is no endpoint.

    Args:
        endpoint: the receiver's URL, without the path of a signal.
        instance: names this process among those of the service.

    Raises InvalidArgument if the extra is not installed, or a variable names a file that cannot be used.
    """
    if endpoint is None:
        return None
    if not has_otel():
        raise InvalidArgument("spans need the extra otel: pip install 'clipper-serving[otel]'")
    from clipper.worker.telemetry.otlp_sender import OtlpSender

    return Exporter(OtlpSender(endpoint, instance, environ))
