"""Which requests are traced, and how their spans hang together."""

from random import Random

import pytest

from clipper.worker.telemetry.request_note import EndedQuery, QueryNote, RequestNote
from clipper.worker.telemetry.spans import MAX_LINKS, BatchEnd, BatchNote, Tracer
from clipper.worker.telemetry.trace_context import Parent, SpanContext

CALLER = SpanContext(11, 12, "a=1")


def tracer(share: float = 1.0) -> Tracer:
    return Tracer(share, Random(1))


def test_a_parent_says_whether_its_request_is_traced() -> None:
    for share in (0.0, 1.0):
        span, parent_id = tracer(share).begin(Parent(CALLER, True), 0.5)
        assert span is not None and (span.trace_id, span.state, parent_id) == (11, "a=1", 12)
        assert span.span_id not in (0, 12)
        assert tracer(share).begin(Parent(CALLER, False), 0.5) == (None, 0)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 1000), (0.1, 100)])
def test_a_share_of_the_others_begins_traces_of_their_own(share: float, count: int) -> None:
    decider = tracer(share)
    spans = [span for span, _ in (decider.begin(None, n / 1000) for n in range(1000)) if span is not None]
    assert len(spans) == count
    assert len({span.trace_id for span in spans}) == len({span.span_id for span in spans}) == len(spans)


def test_a_request_its_query_and_the_selection_hang_together() -> None:
    decider = tracer()
    own, parent_id = decider.begin(Parent(CALLER, True), 0.5)
    assert own is not None
    request = RequestNote(1.0, "r", "POST", "/app/predict", "", span=own, parent_id=parent_id, application="app")
    note = QueryNote(request, decider.child(own), 1.2, 1)
    top = decider.request(request, "504", True, 2.0, "http")
    query, select = decider.query(EndedQuery("app", 7, 1.0, 1.9, 0.02, ("m",), 1, "timeout", note))
    assert top is not None
    assert (top.name, top.kind, top.context, top.parent_id, top.error) == (
        "POST /app/predict", "server", own, 12, "504"
    )  # fmt: skip
    assert top.attributes["http.response.status_code"] == 504
    assert (query.name, query.parent_id, query.error) == ("query app", own.span_id, "timeout")
    assert (query.start_s, query.end_s, query.attributes["clipper.query_id"]) == (1.0, 1.9, 7)
    assert (select.parent_id, select.start_s, select.end_s) == (query.context.span_id, 1.0, 1.2)
    assert {each.context.trace_id for each in (top, query, select)} == {11}


def test_a_name_is_of_few_whatever_is_asked() -> None:
    span = SpanContext(1, 2)
    unknown = tracer().request(RequestNote(1.0, "", "GET", "/no/such/7", span=span), "404", False, 2.0, "http")
    assert unknown is not None and (unknown.name, unknown.error) == ("GET", "")


def test_what_is_not_traced_has_no_spans() -> None:
    request = RequestNote(1.0, "r")
    assert tracer().request(request, "200", False, 2.0, "http") is None
    assert tracer().query(EndedQuery("app", 7, 1.0, 2.0, 0.1, (), 1, "", QueryNote(request))) == []
    assert tracer().query(EndedQuery("app", 7, 1.0, 2.0, 0.1, (), 1, "", None)) == []


def test_a_batch_has_links_to_its_queries_and_its_queries_to_it() -> None:
    decider, queries = tracer(), (SpanContext(1, 2), SpanContext(3, 4))
    note = BatchNote(decider.child(queries[0]), 1.0, "m:1#2", 64, queries)
    queued = decider.queued("m", "1", queries[1], 0.9, note)
    assert (queued.context.trace_id, queued.parent_id, queued.links) == (3, 4, (note.context,))
    assert (queued.start_s, queued.end_s) == (0.9, 1.0)
    batch, compute = decider.batch("m", "1", note, [queries[1], SpanContext(5, 6)], BatchEnd(2.0, 0.5))
    assert batch.links == (*queries, SpanContext(5, 6))
    assert (batch.context.trace_id, batch.parent_id, batch.start_s, batch.end_s) == (1, 2, 1.0, 2.0)
    assert (batch.attributes["clipper.batch_size"], batch.attributes["clipper.replica"]) == (64, "m:1#2")
    # The container computed for half of the time; the way there and back took a quarter each.
    assert (compute.parent_id, compute.start_s, compute.end_s) == (batch.context.span_id, 1.25, 1.75)


def test_a_batch_without_results_has_no_compute() -> None:
    decider = tracer()
    note = BatchNote(SpanContext(1, 9), 1.0, "m:1#2", 1, (SpanContext(1, 2),))
    (batch,) = decider.batch("m", "1", note, (), BatchEnd(2.0, None))
    assert batch.error == "no results came"


def test_a_container_that_says_it_took_longer_than_it_did() -> None:
    note = BatchNote(SpanContext(1, 9), 1.0, "m:1#2", 1, (SpanContext(1, 2),))
    _, compute = tracer().batch("m", "1", note, (), BatchEnd(2.0, 5.0))
    assert (compute.start_s, compute.end_s) == (1.0, 2.0)


def test_links_are_bounded() -> None:
    queries = tuple(SpanContext(number, number) for number in range(1, 4000))
    batch, _ = tracer().batch("m", "1", BatchNote(SpanContext(1, 9), 1.0, "m:1#1", 4096, queries), (), BatchEnd(2, 0.1))
    assert len(batch.links) == MAX_LINKS
    assert batch.attributes["clipper.traced_queries"] == 3999
