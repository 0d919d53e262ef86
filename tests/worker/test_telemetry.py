"""A real worker with logs and traces: what it writes and sends of queries, and what a bad receiver or disk costs."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from clipper.control.statistics import TelemetryStatistics
from clipper.settings.version import Batching
from clipper.worker.telemetry.exporter import MAX_WAITING_SPANS
from tests.otlp_receiver import OtlpReceiver, attributes, otlp_receiver
from tests.serving import SUM, Response, Serving, application, model, post, serving, version
from tests.waiting import until

SLOW = """
import time

def predict(inputs):
    time.sleep(0.05 if any(row[0] for row in inputs) else 0)
    return [float(row.sum()) for row in inputs]
"""
# Answers each row's sum, within a span of its own that it sends by OpenTelemetry's SDK.
OWN_SPAN = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from clipper.model.runtime.trace import current_trace

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter("URL/v1/traces")))
tracer = provider.get_tracer("mine")

def context_of(headers):
    return get_current_span(TraceContextTextMapPropagator().extract(headers._asdict())).get_span_context()

def predict(inputs):
    trace = current_trace()
    links = [Link(context_of(query)) for query in trace.queries] if trace else []
    with tracer.start_as_current_span("look up", links=links):
        return [float(row.sum()) for row in inputs]
"""
CALLER = f"{0xCA11:016x}"


@contextmanager
def observed(code: str = SUM, *, slo_ms: float = 20_000.0, **telemetry: Any) -> Iterator[Serving]:
    """A worker that tells what ``telemetry`` says, and one model without a cache that gets batches of up to 8."""
    with serving() as system:
        system.start_worker(telemetry=telemetry, logs=str(system.folder))
        container = system.start_container(code)
        system.apply(
            [application("app", slo_ms=slo_ms), application("late", slo_ms=20.0)],
            [model(version(container, cache=False, batching=Batching("fixed", 8)))],
        )
        yield system


def told(system: Serving) -> TelemetryStatistics:
    statistics = system.worker.statistics().telemetry
    assert statistics is not None
    return statistics


def ask(system: Serving, *numbers: float, name: str = "app", **headers: str) -> list[Response]:
    """Ask on one connection, all at once."""
    with system.worker.connect() as client:
        client.send(b"".join(post(f"/{name}/predict", {"input": [number]}, **headers) for number in numbers))
        return [client.read() for _ in numbers]


def lines(system: Serving, name: str) -> list[dict[str, Any]]:
    path = system.folder / f"{name}-0.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# -- traces ------------------------------------------------------------------------------------------------


@dataclass
class Traced:
    """A system whose requests are traced by their parents alone."""

    system: Serving
    receiver: OtlpReceiver

    def spans(self, trace: int, name: str = "") -> list[Any]:
        """The spans of a trace that have come, or those of a name."""
        found = [span for span in self.receiver.spans if int.from_bytes(span.trace_id) == trace]
        return [span for span in found if not name or span.name == name]


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    with (
        pytest.MonkeyPatch.context() as patch,
        otlp_receiver() as receiver,
    ):
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=secret")
        with observed(SLOW, otlp_endpoint=receiver.url, trace_share=0.0) as system:
            yield Traced(system, receiver)


def parent(trace: int, flags: str = "01") -> str:
    return f"00-{trace:032x}-{CALLER}-{flags}"


def test_a_query_is_one_trace_from_its_request_to_the_container(traced: Traced) -> None:
    system, receiver = traced.system, traced.receiver
    for _ in range(2):  # the second time the head is known
        (answer,) = ask(system, 1, traceparent=parent(1), tracestate="a=1", x_request_id="mine")
    assert (answer.status, answer.headers["x-request-id"]) == (200, "mine")
    ask(system, 2)
    ask(system, 3, traceparent=parent(2, flags="00"))
    until(lambda: len(traced.spans(1)) == 10)
    spans = traced.spans(1)
    assert receiver.spans == spans and receiver.headers["x-api-key"] == "secret"
    assert Counter(span.name for span in spans) == dict.fromkeys(
        ("POST /app/predict", "query app", "queue m", "batch m", "compute m"), 2
    )
    by_id = {span.span_id: span for span in spans}
    names_above = {"query app": "POST /app/predict", "queue m": "query app", "batch m": "query app"}
    for span in spans:
        assert span.trace_state == "a=1"
        above = by_id.get(span.parent_span_id)
        assert (above.name if above else None) == (names_above | {"compute m": "batch m"}).get(span.name)
        if above is None:
            assert span.parent_span_id.hex() == CALLER
            assert attributes(span)["clipper.request_id"] == "mine"
        else:
            assert above.start_time_unix_nano <= span.start_time_unix_nano + 1000
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert abs(spans[0].start_time_unix_nano / 1e9 - time.time()) < 60
    assert answer.json["query_id"] in [attributes(span)["clipper.query_id"] for span in traced.spans(1, "query app")]
    for batch, compute in zip(traced.spans(1, "batch m"), traced.spans(1, "compute m")):
        assert attributes(batch)["clipper.replica"] == system.containers[0].address.id
        assert compute.end_time_unix_nano - compute.start_time_unix_nano > 45e6
    until(lambda: told(system).spans_exported == 10)


def test_a_query_that_is_late_says_so_and_its_batch_is_still_linked(traced: Traced) -> None:
    traces, late = itertools.count(1000), []

    def computed() -> int | None:
        """The trace of a query that was late after its batch was sent.

        On a busy machine one may be late before that, and a worker that stands still sees the answer first.
        """
        trace = next(traces)
        (answer,) = ask(traced.system, 1, name="late", traceparent=parent(trace))
        assert answer.status in (200, 504)
        late.extend([trace] * (answer.status == 504))
        return next((trace for trace in late if traced.spans(trace, "compute m")), None)

    trace = until(computed)
    names = ("query late", "batch m", "POST /late/predict")
    (query,), (batch,), (request,) = (traced.spans(trace, name) for name in names)
    assert attributes(query)["clipper.reason"] == query.status.message == "timeout"
    assert attributes(request)["http.response.status_code"] == 504 and request.status.code == 2
    assert [link.span_id for link in batch.links] == [query.span_id]
    assert batch.end_time_unix_nano > query.end_time_unix_nano


def test_a_request_with_several_inputs_has_a_span_for_each(traced: Traced) -> None:
    with traced.system.worker.connect() as client:
        body = {"input_batch": [[1], [2], [3]]}
        assert client.ask("/app/predict", body, traceparent=parent(4)).status == 200
        # A call of the Open Inference Protocol, and one that is none.
        tensor = {"name": "input", "shape": [1, 1], "datatype": "FP64", "data": [4]}
        assert client.ask("/v2/models/app/infer", {"inputs": [tensor]}, traceparent=parent(5)).status == 200
        assert client.ask("/nowhere", {}, traceparent=parent(6)).status == 404
    until(lambda: traced.spans(5, "compute m") and traced.spans(6))
    (request,) = traced.spans(4, "POST /app/predict")
    assert [span.parent_span_id for span in traced.spans(4, "query app")] == [request.span_id] * 3
    assert len(traced.spans(5, "POST /v2/models/app/infer")) == len(traced.spans(5, "query app")) == 1
    assert [span.name for span in traced.spans(6)] == ["POST"]


def test_a_batch_has_links_to_all_its_traced_queries(traced: Traced) -> None:
    with traced.system.worker.connect() as client:
        client.send(
            b"".join(post("/app/predict", {"input": [1]}, traceparent=parent(100 + each)) for each in range(16))
        )
        assert {client.read().status for _ in range(16)} == {200}

    def named(name: str) -> list[Any]:
        return [span for each in range(16) for span in traced.spans(100 + each, name)]

    until(lambda: len(named("query app")) == 16 and told(traced.system).spans_waiting == 0)
    queries, batches = {span.span_id for span in named("query app")}, named("batch m")
    links = [link.span_id for batch in batches for link in batch.links]
    assert len(links) == 16 and set(links) == queries
    assert max(len(batch.links) for batch in batches) > 1
    assert sum(attributes(batch)["clipper.batch_size"] for batch in batches) == 16
    assert {span.parent_span_id for span in named("queue m")} == queries
    assert {link.span_id for span in named("queue m") for link in span.links} == {batch.span_id for batch in batches}


def test_a_models_own_span_is_a_part_of_its_batch() -> None:
    with (
        otlp_receiver() as receiver,
        observed(OWN_SPAN.replace("URL", receiver.url), otlp_endpoint=receiver.url, trace_share=0.0) as system,
    ):
        assert ask(system, 1, traceparent=parent(1), tracestate="a=1")[0].json["output"] == 1
        assert ask(system, 2, traceparent=parent(2, flags="00"))[0].json["output"] == 2
        found = Traced(system, receiver)
        until(lambda: len(found.spans(1)) == 6 and len(receiver.named("look up")) == 2)
        (own,), (batch,), (query,) = (found.spans(1, name) for name in ("look up", "batch m", "query app"))
        assert own.parent_span_id == batch.span_id and own.trace_state == "a=1"
        assert [link.span_id for link in own.links] == [query.span_id]
        assert batch.start_time_unix_nano <= own.start_time_unix_nano + 1000
        assert own.end_time_unix_nano <= batch.end_time_unix_nano + 1000
        # That of the batch that is not traced is for the model's own tracer to decide on.
        assert found.spans(2) == []


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["hangs", "is away"])
def test_a_bad_receiver_costs_no_query_and_no_stop(trouble: str) -> None:
    with otlp_receiver() as receiver:
        receiver.goes_on.clear()
        url = "http://127.0.0.1:9" if trouble == "is away" else receiver.url
        with observed(otlp_endpoint=url, trace_share=1.0) as system:
            rows = [[number] for number in range(MAX_WAITING_SPANS // 3)]
            with system.worker.connect() as client:
                for _ in range(2):  # with two spans for each query alone, more than may wait
                    answer = client.ask("/app/predict", {"input_batch": rows})
                    assert {"output", "query_id"} < answer.json["batch_predictions"][-1].keys()
            assert trouble == "is away" or told(system).spans_dropped["queue_full"] > 0
            system.worker.begin_to_stop()
            assert system.worker.wait() == 0
            assert "Traceback" not in system.worker.log
            assert system.worker.log.count("cannot send spans") <= 1


# -- logs --------------------------------------------------------------------------------------------------


def test_the_access_log_has_each_request_and_nothing_secret() -> None:
    with observed(access_log=1.0, log_format="json") as system:
        first, second = ask(system, 4242, 4242, Authorization="Bearer very-secret", X_Request_Id="r\u00e4tsel")
        with system.worker.connect() as client:
            client.ask("/app/predict?key=very-secret", {"input": "not numbers"}, X_Request_Id="mine")
        until(lambda: len(lines(system, "access")) == 3)
        one, two, wrong = lines(system, "access")
        assert [one["request_id"], two["request_id"]] == [first.headers["x-request-id"], second.headers["x-request-id"]]
        assert [one["query_id"], two["query_id"]] == [first.json["query_id"], second.json["query_id"]]
        assert (one["application"], one["status"], one["client"]) == ("app", "200", "127.0.0.1")
        assert (wrong["request_id"], wrong["status"], wrong["path"]) == ("mine", "400", "/app/predict")
        text = (system.folder / "access-0.log").read_text()
        assert "very-secret" not in text and "4242" not in text
        assert told(system).lines_written == {"access": 3}


def test_the_slow_query_log_has_slow_queries_alone() -> None:
    # A quick query takes less, also on a busy machine.
    with observed(SLOW.replace("0.05", "2.0"), slow_query_ms=2000.0, log_format="json") as system:
        (answer,) = ask(system, 1, X_Request_Id="mine")
        until(lambda: len(lines(system, "slow")) == 1)
        (line,) = lines(system, "slow")
        assert (line["application"], line["query_id"], line["request_id"]) == ("app", answer.json["query_id"], "mine")
        assert line["duration_ms"] >= 2000 and line["models"] == "m"
        assert ask(system, 0)[0].headers.get("x-request-id") is None  # none is made for it
        assert told(system).lines_written == {"slow": 1}


def test_a_full_disk_is_a_problem_and_no_querys() -> None:
    with observed(access_log=1.0) as system:
        (system.folder / "access-0.log").symlink_to("/dev/full")
        assert ask(system, 1)[0].status == 200
        until(lambda: "No space left" in "".join(told(system).problems))
        assert told(system).lines_left_out == {"access": 1}
        assert ask(system, 2)[0].status == 200


def test_too_many_lines_are_left_out_and_counted() -> None:
    with observed(access_log=1.0, log_format="json") as system:
        with system.worker.connect() as client:
            for _ in range(60):
                client.send(post("/nowhere", b"") * 60)
                assert {client.read().status for _ in range(60)} == {404}
        until(lambda: sum(told(system).lines_written.values()) + sum(told(system).lines_left_out.values()) == 3600)


def test_a_worker_that_tells_nothing_has_no_telemetry() -> None:
    with observed() as system:
        (answer,) = ask(system, 1, X_Request_Id="mine", traceparent=parent(1))
        assert answer.headers["x-request-id"] == "mine"
        assert "x-request-id" not in ask(system, 1)[0].headers
        assert system.worker.statistics().telemetry is None
        assert list(system.folder.glob("access*")) == []
