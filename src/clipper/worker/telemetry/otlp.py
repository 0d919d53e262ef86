"""Spans as messages of OTLP: bytes only. Its schema is OpenTelemetry's own, ``opentelemetry-proto``, which is an extra.

OpenTelemetry's library first makes objects of its own from each span, and takes ten times the processor time.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from clipper import __version__
from clipper.worker.telemetry.spans import Span, Value

_KINDS = {
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
}
# All spans here are sampled, which is the trace flag 1. 256 says that it is known whether the parent is in another
# process, and 512 that it is.
_SAMPLED, _LOCAL_PARENT, _REMOTE_PARENT = 1, 256, 256 + 512


def encode(spans: Sequence[Span], began_s: float, resource: Mapping[str, Value]) -> bytes:
    """Return the message that exports spans.

    Args:
        spans: spans with times of a clock that was at 0 at ``began_s``.
        began_s: in seconds since 1970.
    """
    message = ExportTraceServiceRequest()
    of_resource = message.resource_spans.add()
    for name, value in resource.items():
        _set(of_resource.resource.attributes.add(), name, value)
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = "clipper", __version__
    for span in spans:
        _fill(of_scope.spans.add(), span, began_s)
    text: bytes = message.SerializeToString()  # untyped where protobuf's types are not installed
    return text


def _fill(made: trace_pb2.Span, span: Span, began_s: float) -> None:
    context = span.context
    made.trace_id, made.span_id = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
    made.trace_state, made.name, made.kind = context.state, span.name, _KINDS[span.kind]
    made.flags = _SAMPLED | (_REMOTE_PARENT if span.kind == "server" else _LOCAL_PARENT)
    if span.parent_id:
        made.parent_span_id = span.parent_id.to_bytes(8)
    made.start_time_unix_nano = int((began_s + span.start_s) * 1e9)
    made.end_time_unix_nano = int((began_s + span.end_s) * 1e9)
    for name, value in span.attributes.items():
        _set(made.attributes.add(), name, value)
    for each in span.links:
        made.links.add(trace_id=each.trace_id.to_bytes(16), span_id=each.span_id.to_bytes(8), trace_state=each.state)
    if span.error:
        made.status.code, made.status.message = trace_pb2.Status.STATUS_CODE_ERROR, span.error


def _set(attribute: KeyValue, name: str, value: Value) -> None:
    attribute.key = name
    match value:
        case str():
            attribute.value.string_value = value
        case bool():  # which is an int, too
            attribute.value.bool_value = value
        case int():
            attribute.value.int_value = value
        case float():
            attribute.value.double_value = value
        case tuple():
            for each in value:
                attribute.value.array_value.values.add().string_value = each


def read_pairs(text: str) -> dict[str, str]:
    """Read ``key=value,key=value``, the form of OpenTelemetry's variables; values are percent-encoded."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip(): unquote(value.strip()) for name, equals, value in pairs if equals and name.strip()}


def resource_of(instance: str, environ: Mapping[str, str]) -> dict[str, Value]:
    """Return a process's attributes: its service, its ``instance``, and ``OTEL_RESOURCE_ATTRIBUTES``."""
    given = read_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = environ.get("OTEL_SERVICE_NAME") or given.get("service.name") or "clipper"
    own = {"service.name": name, "service.version": __version__}
    return {"service.instance.id": instance, **own, **given, "service.name": name}
