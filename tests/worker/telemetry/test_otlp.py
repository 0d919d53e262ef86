"""Spans as messages, read by OpenTelemetry's schema."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clipper.worker.telemetry.otlp import encode, read_pairs, resource_of
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.trace_context import SpanContext
from tests.otlp_receiver import attributes

SPAN = Span(
    "batch m",
    SpanContext(0xA << 120, 0xB, "vendor=1"),
    0xC,
    "client",
    1.0,
    1.5,
    {"text": "t", "count": 2**53, "share": 0.5, "flag": True, "models": ("a", "b")},
    (SpanContext(7, 8),),
    "timeout",
)


def test_a_span_is_what_it_was() -> None:
    message = ExportTraceServiceRequest.FromString(encode([SPAN], 1_700_000_000.0, {"service.name": "clipper"}))
    (resource,) = message.resource_spans
    assert attributes(resource.resource) == {"service.name": "clipper"}
    (span,) = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        f"{0xA << 120:032x}", f"{0xB:016x}", f"{0xC:016x}"
    )  # fmt: skip
    assert (span.name, span.kind, span.trace_state, span.flags) == ("batch m", 3, "vendor=1", 257)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_700_000_001 * 10**9, 1_700_000_001_500_000_000)
    found = attributes(span)
    assert [value.string_value for value in found.pop("models").values] == ["a", "b"]
    assert found == {"text": "t", "count": 2**53, "share": 0.5, "flag": True}
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(f"{7:032x}", f"{8:016x}")]
    assert (span.status.code, span.status.message) == (2, "timeout")


def test_a_span_that_begins_a_trace_and_has_no_error() -> None:
    data = encode([Span("POST", SpanContext(1, 2), 0, "server", 1.0, 2.0, {})], 0.0, {})
    span = ExportTraceServiceRequest.FromString(data).resource_spans[0].scope_spans[0].spans[0]
    assert (span.parent_span_id, span.kind, span.flags, span.status.code) == (b"", 2, 769, 0)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [("", {}), ("a=1, b = 2%2C3 ", {"a": "1", "b": "2,3"}), ("a,=1,,b=x=y", {"b": "x=y"}), ("a=", {"a": ""})],
)
def test_pairs(text: str, pairs: dict[str, str]) -> None:
    assert read_pairs(text) == pairs


def test_the_service_is_called_as_opentelemetrys_variables_say() -> None:
    assert resource_of("worker-0", {})["service.name"] == "clipper"
    given = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,zone=b", "OTEL_SERVICE_NAME": "shop"}
    assert resource_of("worker-0", given)["service.name"] == "shop"
    del given["OTEL_SERVICE_NAME"]
    found = resource_of("worker-0", given)
    assert (found["service.name"], found["zone"], found["service.instance.id"]) == ("a", "b", "worker-0")
