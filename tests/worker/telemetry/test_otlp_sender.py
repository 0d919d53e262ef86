"""Spans over the wire, to a receiver that decodes them with OpenTelemetry's protobuf."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument, Unavailable
from clipper.worker.telemetry import otlp_sender
from clipper.worker.telemetry.otlp_sender import OtlpSender
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.trace_context import SpanContext
from tests.certificates import Authority
from tests.otlp_receiver import OtlpReceiver, otlp_receiver

SPAN = Span("s", SpanContext(1, 2), 0, "internal", 1.0, 1.5, {})


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_sender, "RETRY_AFTER_S", (0.001, 0.001, 0.001))


def test_spans_arrive_with_what_the_variables_say(receiver: OtlpReceiver) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=other",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "X-Api-Key=secret%20one",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "shop",
    }
    sender = OtlpSender(receiver.url, "worker-3", environ)
    for _ in range(2):
        sender.send([SPAN, SPAN], 0.0)
    assert [span.name for span in receiver.spans] == ["s"] * 4
    assert (receiver.resources[0]["service.name"], receiver.resources[0]["service.instance.id"]) == ("shop", "worker-3")
    assert (receiver.headers["x-api-key"], receiver.headers["content-encoding"]) == ("secret one", "gzip")
    assert receiver.headers["content-type"] == "application/x-protobuf"


def test_a_path_is_kept(receiver: OtlpReceiver) -> None:
    OtlpSender(f"{receiver.url}/otlp", "worker-0", {}).send([SPAN], 0.0)
    assert receiver.path == "/otlp/v1/traces"


def test_a_refusal_says_why_and_is_not_tried_again(receiver: OtlpReceiver) -> None:
    receiver.status = 400
    with pytest.raises(Unavailable, match="400"):
        OtlpSender(receiver.url, "worker-0", {}).send([SPAN], 0.0)
    assert receiver.messages == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_is_away_for_a_moment_is_asked_again(receiver: OtlpReceiver, status: int) -> None:
    receiver.statuses = [status, status]
    OtlpSender(receiver.url, "worker-0", {}).send([SPAN], 0.0)
    assert (receiver.messages, len(receiver.spans)) == (3, 1)
    receiver.status = status
    sender = OtlpSender(receiver.url, "worker-0", {})
    with pytest.raises(Unavailable, match=str(status)):
        sender.send([SPAN], 0.0)
    assert receiver.messages == 7
    sender.close()
    with pytest.raises(Unavailable):
        sender.send([SPAN], 0.0)
    assert receiver.messages == 8


def answer_one(listener: socket.socket, answer: bytes) -> None:
    with listener.accept()[0] as client:
        client.recv(100)
        client.sendall(answer)


@pytest.mark.parametrize("answer", [None, b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"])
def test_a_receiver_that_is_away_or_answers_nothing(answer: bytes | None) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answer is not None:
            listener.listen()
            threading.Thread(target=answer_one, args=[listener, answer]).start()
        with pytest.raises(Unavailable, match="no answer from"):
            OtlpSender(f"http://127.0.0.1:{listener.getsockname()[1]}", "worker-0", {}).send([SPAN], 0.0)


def test_a_receiver_that_hangs(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_sender, "TIMEOUT_S", 0.05)
    receiver.goes_on.clear()
    with pytest.raises(Unavailable, match="no answer"):
        OtlpSender(receiver.url, "worker-0", {}).send([SPAN], 0.0)


def test_a_tls_receiver_is_believed_by_the_certificate_of_the_variable(receiver: OtlpReceiver, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    url = receiver.url.replace("http://", "https://")
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        OtlpSender(url, "worker-0", {}).send([SPAN], 0.0)
    OtlpSender(url, "worker-0", {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate)}).send([SPAN], 0.0)
    assert len(receiver.spans) == 1
    with pytest.raises(InvalidArgument, match="OTEL_EXPORTER_OTLP_CERTIFICATE"):
        OtlpSender(url, "worker-0", {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "absent")})
