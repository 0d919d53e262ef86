"""The record of a run: every query once, whatever its end, and latencies as they were."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.base.http1 import Answer
from clipper.cli.load.records import BY_MODEL, Outcome, Records, outcome_of
from clipper.cli.load.report import Run
from clipper.worker.frontend.http.responses import default_json, error_json, prediction_json, unsure_json
from clipper.worker.selection.query import make_source
from tests.example_counts import share_of

SLO_S = 0.1
OUTPUTS = (b"1", b'"text"', b'{"default":true,"error":"x"}', b'"\\"default\\":true"', b"[1,2]")
BEGAN_S = 1000.0
ANSWERS = {
    "model": Answer(200, prediction_json(1, b"1", 1.0, make_source(["m:1"]))),
    "default": Answer(200, default_json(1, b"0", "timeout", "late")),
    "error": Answer(503, error_json("overloaded", "full")),
    "limited": Answer(429, error_json("too_many_requests", "10 queries a second")),
}


ENDS = st.sampled_from([*ANSWERS, "failed", "not sent", "open"])


@settings(max_examples=share_of(50))
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.3), ENDS), max_size=40))
def test_every_query_ends_once(queries: list[tuple[float, float, str]]) -> None:
    records, cut_off = Records(SLO_S), 0
    records.begin(BEGAN_S)
    for number, (after_s, latency_s, end) in enumerate(queries):
        due_s = BEGAN_S + after_s
        records.due(number, due_s, due_s + 0.001)
        if end in ANSWERS:
            records.answered(number, due_s, due_s, due_s + latency_s, ANSWERS[end])
        elif end == "failed":
            records.failed(number, due_s, "connection lost")
        elif end == "not sent":
            records.not_sent(number, due_s)
        cut_off += end == "open"
    run = records.run(10, 5, 0.1, 3, cut_off)
    ends = [end for _, _, end in queries]
    assert run.offered == len(queries)
    assert (run.by_model, run.defaults.get("timeout", 0)) == (ends.count("model"), ends.count("default"))
    assert run.errors.get("503 overloaded", 0) == ends.count("error")
    assert run.over_limit == ends.count("limited")
    assert run.errors.get("connection lost", 0) == ends.count("failed")
    assert run.answered + run.errors.get("connection lost", 0) + run.not_sent + run.unfinished == run.offered
    late = [end for after_s, latency_s, end in queries if end in ANSWERS and is_late(after_s, latency_s)]
    assert (run.late, run.by_model - run.good) == (len(late), late.count("model"))
    for name in ("offered", "by_model", "good", "not_sent", "over_limit"):
        assert sum(getattr(second, name) for second in run.seconds) == getattr(run, name)
    assert sum(second.defaults for second in run.seconds) == sum(run.defaults.values())
    assert sum(second.errors for second in run.seconds) == sum(run.errors.values())


def is_late(after_s: float, latency_s: float) -> bool:
    due_s = BEGAN_S + after_s
    return (due_s + latency_s) - due_s > SLO_S


def answered_with(latencies_s: list[float], gap_s: float = 0.001) -> Run:
    records = Records(SLO_S)
    records.begin(BEGAN_S)
    for number, latency_s in enumerate(latencies_s):
        due_s = BEGAN_S + number * gap_s
        records.due(number, due_s, due_s)
        records.answered(number, due_s, due_s, due_s + latency_s, ANSWERS["model"])
        records.close_seconds()
    return records.run(1000, len(latencies_s) * gap_s, 0.0, 3, 0)


def test_percentiles_are_those_of_the_latencies() -> None:
    latencies_s = np.random.default_rng(1).lognormal(-4, 1, 5000)
    run = answered_with(latencies_s.tolist())
    assert run.latency_ms is not None
    wanted = np.sort(latencies_s * 1e3)[[2499, 4499, 4949, 4994, 4999]]
    found = [run.latency_ms.p50, run.latency_ms.p90, run.latency_ms.p99, run.latency_ms.p99_9, run.latency_ms.max]
    assert found == pytest.approx(wanted, rel=2e-3, abs=2e-3)
    curve = [(each.percent, each.latency_ms) for each in run.percentiles]
    assert curve == sorted(curve) and (curve[0][0], curve[-1][0]) == (0.0, 100.0)
    shares = [np.mean(latencies_s * 1e3 <= latency_ms) * 100 for _, latency_ms in curve]
    assert [percent for percent, _ in curve[1:]] == pytest.approx(shares[1:], abs=0.1)


def test_seconds_are_closed_once_all_their_queries_have_ended() -> None:
    records = Records(SLO_S)
    records.begin(BEGAN_S)
    for second in range(3):
        records.due(second, BEGAN_S + second, BEGAN_S + second)
    assert records.last_second() is not None
    records.close_seconds()
    assert len(records._open) == 3
    records.answered(0, BEGAN_S, BEGAN_S, BEGAN_S + 0.01, ANSWERS["model"])
    records.close_seconds()
    assert len(records._open) == 2
    found = records.last_second()
    assert found is not None and (found.second, found.offered, found.p99_ms) == (1, 1, None)


def test_latencies_beyond_all_bounds_are_counted() -> None:
    run = answered_with([0.0, -1.0, 1e6])
    assert run.latency_ms is not None and run.latency_ms.max >= 190_000
    assert run.answered == 3


def test_a_run_without_queries() -> None:
    run = Records(SLO_S).run(1, 0.0, 0.0, 3, 0)
    assert (run.offered, run.latency_ms, run.sender.lag_ms, run.goodput_per_s) == (0, None, None, 0.0)


def test_a_server_that_makes_up_reasons_fills_no_memory() -> None:
    records = Records(SLO_S)
    records.begin(BEGAN_S)
    for number in range(1000):
        records.due(number, BEGAN_S, BEGAN_S)
        records.answered(number, BEGAN_S, BEGAN_S, BEGAN_S, Answer(500, b'{"error":"e%d"}' % number))
    errors = records.run(1, 1.0, 0.0, 3, 0).errors
    assert len(errors) < 50 and sum(errors.values()) == 1000


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_became_of_a_query(output: bytes) -> None:
    assert outcome_of(200, prediction_json(7, output, 1.0, make_source(["m:1"]))) is BY_MODEL
    assert outcome_of(200, prediction_json(7, output, 0.5, make_source(["m:1"]))) is BY_MODEL
    assert outcome_of(200, default_json(7, output, "timeout", 'of "default":false')) == Outcome(default="timeout")
    assert outcome_of(200, unsure_json(7, b"0", output, 0.1)) == Outcome(default="low_confidence")
    assert outcome_of(503, error_json("overloaded", "queue is full")) == Outcome(error="503 overloaded")


def test_what_is_not_of_clipper() -> None:
    assert outcome_of(200, json.dumps({"output": 1.0}).encode()) is BY_MODEL
    assert outcome_of(502, b"<html>").error == "502 not a prediction"
    assert outcome_of(200, b"\xff").error == "200 not a prediction"
    assert outcome_of(200, b'{"default":"yes"}').error == "200 not a prediction"
    assert outcome_of(429, b"{}").error == "429"
    assert outcome_of(200, b'{"default":true}').default == "no reason"


def test_what_a_server_makes_up_does_no_harm() -> None:
    made_up = outcome_of(500, json.dumps({"error": "\x1b[2J\r\n<b>" + "x" * 10**6}).encode()).error
    assert made_up.startswith("500 ??2J???b?x") and len(made_up) < 50
    assert outcome_of(200, '{"default":true,"default_reason":"é\\u202e"}'.encode()).default == "??"
