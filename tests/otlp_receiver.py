"""A receiver of OTLP over HTTP, as a collector: what comes is decoded by OpenTelemetry's own protobuf."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class OtlpReceiver(ThreadingHTTPServer):
    """
    Attributes:
        spans: of all messages so far.
        resources: their attributes.
        headers: of the last message.
        status: of its answers, after those of ``statuses``.
        path: of the last message.
        goes_on: cleared, it answers nothing any more.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}
        self.status = 200
        self.statuses: list[int] = []
        self.path = ""
        self.messages = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: OtlpReceiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        receiver = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        receiver.headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.messages += 1
        receiver.goes_on.wait()
        status = receiver.statuses.pop(0) if receiver.statuses else receiver.status
        receiver.path = self.path
        if status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                receiver.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
                receiver.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.goes_on.set()
        receiver.shutdown()
        thread.join()
        receiver.server_close()
