"""Answers from bytes, however they are cut, and what they mean."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.frontend.responses import answer, default_json, error_json, ok, prediction_json, unsure_json
from clipper.load import answers
from clipper.load.answers import BY_MODEL, Answer, AnswerReader, BadAnswer, Outcome, outcome_of
from clipper.selection.query import make_source

OUTPUTS = (b"1", b'"text"', b'{"default":true,"error":"x"}', b'"\\"default\\":true"', b"[1,2]")


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=6),
    st.sampled_from([200, 404, 503]),
)
def test_however_it_is_cut(bodies: list[bytes], cuts: list[int], status: int) -> None:
    reader, read = AnswerReader(), []
    for body in bodies:
        whole = ok(body) if status == 200 else answer(status, body)
        places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
        found = [reader.feed(whole[start:end]) for start, end in pairwise(places)]
        assert found[:-1] == [None] * (len(found) - 1)
        read.append(found[-1])
    assert read == [Answer(status, body, False) for body in bodies]


@pytest.mark.parametrize("byte_by_byte", [False, True])
def test_who_ends_the_connection(byte_by_byte: bool) -> None:
    heads = {
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\n": True,
        b"HTTP/1.0 200 OK\r\n": True,
        b"HTTP/1.1 204 \r\n": False,
    }
    for head, closes in heads.items():
        whole = head + b"Content-Length:0\r\n\r\n"
        reader, found = AnswerReader(), None
        for part in [whole[at : at + 1] for at in range(len(whole))] if byte_by_byte else [whole]:
            found = reader.feed(part)
        assert found is not None and found.closes == closes


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no content-length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "the body is over"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", "there are bytes after the answer"),
        (b"x" * (answers.MAX_HEAD_BYTES + 1), "the head is over"),
    ],
)
def test_what_cannot_be_read(data: bytes, says: str) -> None:
    with pytest.raises(BadAnswer, match=says):
        AnswerReader().feed(data)


def test_a_server_that_varies_its_heads_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[bytes, tuple[int, int, bool]] = {}
    monkeypatch.setattr(AnswerReader, "_known", known)
    monkeypatch.setattr(answers, "_MAX_KNOWN_HEADS", 10)
    for number in range(100):
        AnswerReader().feed(b"HTTP/1.1 200 OK\r\nx: %d\r\ncontent-length: 0\r\n\r\n" % number)
    assert len(known) == 10


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
