"""Lines of the access log and the slow-query log, whatever clients name their requests and paths."""

import json

from clipper.worker.telemetry.lines import ACCESS, SLOW_QUERY, access_said, as_json, as_text, slow_said
from clipper.worker.telemetry.request_note import EndedQuery, QueryNote, RequestNote
from clipper.worker.telemetry.trace_context import SpanContext

SPAN = SpanContext(0xABC, 0xDEF)


def note(path: str = "/digits/predict") -> RequestNote:
    return RequestNote(
        10.0, "req-1", "POST", path, "127.0.0.1", span=SPAN, application="digits", queries=1, query_id=2**52
    )


def slow(reason: str = "") -> EndedQuery:
    return EndedQuery("digits", 7, 10.0, 10.25, 0.02, ("svm", "net"), 2, reason, QueryNote(note(), SPAN))


def test_access_line_as_json() -> None:
    message, said = access_said(note(), "200", 10.0015, 70, 3)
    assert json.loads(as_json(0.0, ACCESS, message, said)) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "logger": "clipper.access",
        "message": "POST /digits/predict 200 in 1.5 ms",
        "application": "digits",
        "request_id": "req-1",
        "query_id": 2**52,
        "trace_id": f"{0xABC:032x}",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/digits/predict",
        "status": "200",
        "duration_ms": 1.5,
        "answer_bytes": 70,
        "left_out": 3,
    }


def test_slow_line_as_json() -> None:
    message, said = slow_said(slow("timeout"), 0)
    line = json.loads(as_json(0.0, SLOW_QUERY, message, said))
    assert message == "a query of digits took 250 ms, without an answer: timeout"
    assert (line["query_id"], line["request_id"], line["models"], line["stages"]) == (7, "req-1", "svm,net", 2)
    assert (line["duration_ms"], line["slo_ms"], line["reason"]) == (250.0, 20.0, "timeout")
    assert "left_out" not in line


def test_a_query_without_a_note_has_no_request() -> None:
    message, said = slow_said(EndedQuery("digits", 7, 10.0, 10.25, 0.02, (), 1, "", None), 0)
    assert message == "a query of digits took 250 ms"
    assert said.keys() == {"application", "query_id", "duration_ms", "slo_ms"}


def test_text_has_what_json_has() -> None:
    message, said = access_said(note(), "200", 10.0015, 70, 0)
    line = as_text(0.0, ACCESS, message, said).decode()
    assert line.startswith("1970-01-01T00:00:00.000Z INFO clipper.access: POST /digits/predict 200 in 1.5 ms ")
    assert "request_id=req-1" in line and f"query_id={2**52}" in line and line.endswith("answer_bytes=70\n")


def test_one_request_is_one_line() -> None:
    message, said = access_said(note("/a\nb\r\x85\u2028\x1b[2J/\ud800"), "200", 10.0, 0, 0)
    for line in (as_text(0.0, ACCESS, message, said), as_json(0.0, ACCESS, message, said)):
        text = line.decode()
        assert text.splitlines() == [text.removesuffix("\n")]
        assert text.removesuffix("\n").isprintable()
