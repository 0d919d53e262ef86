"""Tells a model the trace of its batch."""

import sys
from collections.abc import Callable

from clipper.model.model import Inputs
from clipper.model.protocol.trace import BatchTrace, TraceContext, read_trace


class _Current:
    """The trace of the batch that the model evaluates now; None if it is not traced."""

    trace: BatchTrace | None = None


def current_trace() -> BatchTrace | None:
    """Return the trace of the batch that the model evaluates now, on any thread; None if the batch is not traced."""
    return _Current.trace


def tracing(predict_batch: Callable[[Inputs], object], text: bytes) -> Callable[[Inputs], object]:
    """Return a function that calls the model for a batch whose PREDICT has the trace ``text``.

    During the call ``current_trace`` returns the trace. If the model has imported OpenTelemetry, spans that it begins
    are parts of the batch's span.
    """
    trace = read_trace(text)

    def predict(inputs: Inputs) -> object:
        _Current.trace = trace
        detach = _attach(trace.batch)
        try:
            return predict_batch(inputs)
        finally:
            _Current.trace = None
            detach()

    return predict


def _attach(span: TraceContext) -> Callable[[], None]:
    """Make a span OpenTelemetry's current span, and return a function that undoes that."""
    # Nobody makes spans without this module, so a model that makes none does not pay for its import.
    if "opentelemetry.context" not in sys.modules:
        return lambda: None
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = context.attach(TraceContextTextMapPropagator().extract(span._asdict()))
    return lambda: context.detach(token)
