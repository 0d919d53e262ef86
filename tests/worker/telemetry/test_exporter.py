"""The queue of spans, with receivers that are slow, refuse, or hang."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from clipper.errors import InvalidArgument
from clipper.worker.telemetry.exporter import MAX_WAITING_SPANS, SPANS_PER_MESSAGE, Exporter, open_exporter
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.trace_context import SpanContext
from tests.waiting import until

SPAN = Span("s", SpanContext(1, 2), 0, "internal", 1.0, 2.0, {})


class Receiver:
    """Takes spans, or what ``hold`` says."""

    def __init__(self) -> None:
        self.messages: list[int] = []
        self.held = threading.Event()
        self.held.set()
        self.error: Exception | None = None
        self.is_closed = False

    def send(self, spans: Sequence[Span], began_s: float) -> None:
        self.held.wait()
        if self.error is not None:
            raise self.error
        assert abs(began_s + time.monotonic() - time.time()) < 60
        self.messages.append(len(spans))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.held.set()


def test_what_waits_is_sent_at_the_end(receiver: Receiver) -> None:
    exporter = Exporter(receiver)
    for _ in range(3):
        exporter.add(SPAN)
    exporter.close()
    assert (sum(receiver.messages), exporter.done, exporter.waiting) == (3, 3, 0)


def test_messages_are_bounded(receiver: Receiver) -> None:
    exporter = Exporter(receiver)
    for _ in range(2 * SPANS_PER_MESSAGE + 1):
        exporter.add(SPAN)
    exporter.close()
    assert max(receiver.messages) <= SPANS_PER_MESSAGE
    assert sum(receiver.messages) == 2 * SPANS_PER_MESSAGE + 1


def test_a_hanging_receiver_costs_spans_and_delays_no_query_and_no_end(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipper.worker.telemetry.exporter.CLOSE_TIMEOUT_S", 0.05)
    receiver.held.clear()
    exporter = Exporter(receiver)
    for _ in range(2 * MAX_WAITING_SPANS):
        exporter.add(SPAN)
    assert exporter.waiting <= MAX_WAITING_SPANS
    assert exporter.over >= MAX_WAITING_SPANS - SPANS_PER_MESSAGE
    exporter.close()  # returns
    assert receiver.is_closed


def test_a_receiver_that_refuses_is_reported_once(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter(receiver)
    receiver.error = OSError("refused")
    for number in (1, 2):
        for _ in range(SPANS_PER_MESSAGE):
            exporter.add(SPAN)
        until(lambda: exporter.failed == number * SPANS_PER_MESSAGE)  # noqa: B023
    assert exporter.problem == "OSError: refused"
    assert caplog.text.count("cannot send spans") == 1
    receiver.error = None
    exporter.add(SPAN)
    exporter.close()
    assert (exporter.problem, exporter.done) == (None, 1)


def test_without_an_endpoint_nothing_is_opened() -> None:
    assert open_exporter(None, "worker-0", {}) is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.worker.telemetry.exporter.has_otel", lambda: False)
    with pytest.raises(InvalidArgument, match=r"clipper-serving\[otel\]"):
        open_exporter("http://localhost:4318", "worker-0", {})
