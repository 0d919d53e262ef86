"""The queries that a soak asks, and those that it takes for lost."""

import json
import re

import pytest

from benchmarks.soak import by_grpc
from benchmarks.soak.streams import Inputs, Leaving, Tally, lost, streams
from clipper.base.http1 import Answer

KILLS_S = [100.0]


@pytest.mark.parametrize(
    ("due_s", "why", "count"),
    [
        (99.9, "connection lost", 0),
        (102.0, "cannot connect: Connection refused", 0),
        (100.5, "503 unavailable", 0),
        (104.0, "503 unavailable", 1),
        (100.5, "503 overloaded", 1),
        (104.0, "connection lost", 1),
        (90.0, "connection lost", 1),
        (100.0, "no answer", 1),
        (100.0, "not sent", 1),
        (100.0, "bad answer: not HTTP", 1),
    ],
)
def test_only_connections_that_break_at_a_kill_are_not_lost(due_s: float, why: str, count: int) -> None:
    assert lost([(due_s, why)], KILLS_S) == count
    assert lost([(due_s, why)], []) == 1


def test_shares_are_of_one_whole() -> None:
    asked = streams("localhost:1337")
    assert by_grpc.SHARE + sum(each.share for each in asked) == pytest.approx(1.0)
    for stream in asked:
        # One after which the connection ends.
        head, _, body = Leaving(stream.requests).of(49).partition(b"\r\n\r\n")
        assert re.match(rb"POST /\w+/(predict|observe) HTTP/1.1\r\n", head)
        assert b"\r\nContent-Length: %d" % len(body) in head
        assert "input" in json.loads(body)
        assert b"\r\nConnection: close\r\n" in head
        assert b"Connection" not in Leaving(stream.requests).of(48)


def test_feedback_is_on_queries_that_were_answered_while_there_are_any() -> None:
    inputs = Inputs()
    assert "input" in json.loads(inputs.feedback(1))
    inputs.keep(b'{"query_id":5,"output":1}')
    assert json.loads(inputs.feedback(1))["query_id"] == 5
    assert "context" in json.loads(inputs.feedback(1))


def test_contexts_come_and_go() -> None:
    inputs = Inputs()

    def contexts(first: int) -> set[str]:
        return {json.loads(inputs.in_context(number))["context"] for number in range(first, first + 400)}

    assert len(contexts(0)) > 100
    assert not contexts(0) & contexts(4000)


def test_what_became_of_queries() -> None:
    seen: list[bytes] = []
    tally = Tally(seen.append)
    for number, body in enumerate((b'{"output":1}', b'{"default":true,"default_reason":"timeout"}')):
        tally.due(number, 0.0, 0.0)
        tally.answered(number, 0.0, 0.0, 0.3 * number, Answer(200, body, closes=False))
    tally.due(2, 0.0, 0.0)
    tally.answered(2, 0.0, 0.0, 0.1, Answer(503, b'{"error":"overloaded"}', closes=False))
    tally.due(3, 5.0, 5.0)
    tally.not_sent(3, 5.0)
    assert tally.offered == 4
    assert tally.late == 1
    assert tally.ends == {"answered": 1, "default: timeout": 1, "503 overloaded": 1, "not sent": 1}
    assert tally.failures == [(0.0, "503 overloaded"), (5.0, "not sent")]
    assert seen == [b'{"output":1}']
