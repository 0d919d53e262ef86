"""Receives spans by OTLP over HTTP, as a collector does, and prints each request's as a tree.

pip install 'clipper-serving[otel]'
python receiver.py 4318
clipper start --otlp-endpoint http://localhost:4318 --trace-share 1
"""

import gzip
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVER_KIND = 2


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    printing = Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        spans = [span for each in message.resource_spans for scope in each.scope_spans for span in scope.spans]
        with self.printing:
            for span in spans:
                if span.kind == SERVER_KIND:
                    print(f"trace {span.trace_id.hex()}")
                    print_tree(span, spans, span.start_time_unix_nano, 1)
            sys.stdout.flush()
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Only spans are printed."""


def print_tree(span: Any, spans: list[Any], began_ns: int, depth: int) -> None:
    start_ms = (span.start_time_unix_nano - began_ns) / 1e6
    took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    links = f"  of {len(span.links)} traced queries" if span.name.startswith("batch") else ""
    print(f"{'  ' * depth + span.name:30} from {start_ms:7.3f} ms for {took_ms:7.3f} ms{links}")
    below = [each for each in spans if each.parent_span_id == span.span_id]
    for each in sorted(below, key=lambda each: each.start_time_unix_nano):
        print_tree(each, spans, began_ns, depth + 1)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
