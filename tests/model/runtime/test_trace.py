"""A model knows the trace that its batch belongs to."""

import json
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from opentelemetry import trace as otel

from clipper.model.model import Inputs
from clipper.model.protocol import messages
from clipper.model.protocol.frames import MIXED_VERSION
from clipper.model.protocol.trace import BatchTrace, TraceContext, write_trace
from clipper.model.runtime.trace import current_trace, tracing
from clipper.values.types import DType
from tests.model.runtime.caller import code, running

TRACE = BatchTrace(
    TraceContext(f"00-{7:032x}-{8:016x}-01", "a=1,b=2"),
    (TraceContext(f"00-{7:032x}-{9:016x}-01"), TraceContext(f"00-{3:032x}-{4:016x}-01", "c=3")),
)
INPUTS = np.zeros((1, 1))


def test_a_model_knows_its_trace_on_each_thread_while_it_is_called() -> None:
    seen: list[BatchTrace | None] = []

    def predict(_inputs: Inputs) -> object:
        thread = threading.Thread(target=lambda: seen.append(current_trace()))
        thread.start()
        thread.join()
        seen.append(current_trace())
        return [1]

    assert tracing(predict, write_trace(TRACE))(INPUTS) == [1]
    assert seen == [TRACE, TRACE] and current_trace() is None


def test_spans_of_opentelemetry_are_parts_of_the_batch() -> None:
    seen: list[otel.SpanContext] = []

    def predict(_inputs: Inputs) -> object:
        seen.append(otel.get_current_span().get_span_context())
        raise ValueError("no")

    traced = tracing(predict, write_trace(TRACE))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            traced(INPUTS)
        assert current_trace() is None
        assert not otel.get_current_span().get_span_context().is_valid
    (context, _) = seen
    assert (context.trace_id, context.span_id, context.is_remote) == (7, 8, True)
    assert context.trace_flags.sampled and context.trace_state.to_header() == "a=1,b=2"


@pytest.mark.parametrize("text", [b"", b"\n\n", b"\xff\x00", b"00-x-y-01 " + b"," * 600, write_trace(TRACE)[:20]])
def test_a_trace_that_is_not_valid_fails_no_batch(text: bytes) -> None:
    seen: list[bool] = []

    def predict(_inputs: Inputs) -> object:
        seen.append(current_trace() is not None and not otel.get_current_span().get_span_context().is_valid)
        return [1]

    assert tracing(predict, text)(INPUTS) == [1] and seen == [True]


def test_nothing_is_imported_for_a_model_that_makes_no_spans() -> None:
    program = f"""
import sys
from clipper.model.runtime.trace import tracing
tracing(lambda inputs: [1], {write_trace(TRACE)!r})([[1.0]])
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


MODEL = """
from clipper.model.runtime.trace import current_trace
def model(inputs):
    trace = current_trace()
    return [trace and [list(trace.batch), *map(list, trace.queries)]] * len(inputs)
"""


def test_a_container_passes_the_trace_of_each_batch_to_its_model(tmp_path: Path) -> None:
    row = struct.pack("<d", 1.0)
    with running(tmp_path, *code(tmp_path, MODEL)) as container, container.caller(greet=False) as caller:
        assert caller.greet(version=MIXED_VERSION).protocol == MIXED_VERSION
        for batch_id, trace in ((1, write_trace(TRACE)), (2, b"")):
            predict = messages.encode_predict(batch_id, DType.FLOAT64, 0, [row])
            caller.socket.sendall(b"".join(messages.add_trace(predict, trace) if trace else predict))
        (told,), (not_told,) = (map(json.loads, caller.results(batch_id).outputs) for batch_id in (1, 2))
        assert told == [list(TRACE.batch), *map(list, TRACE.queries)] and not_told is None
        with container.caller() as first:  # of the first version, in which the same bytes are reserved
            predict = messages.encode_predict(1, DType.FLOAT64, 0, [row])
            first.socket.sendall(b"".join(messages.add_trace(predict, write_trace(TRACE))))
            with pytest.raises(EOFError):
                first.read()
