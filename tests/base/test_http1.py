"""Answers from bytes, also from a server that lies."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.base import http1
from clipper.base.http1 import Address, Answer, AnswerReader, BadAnswer, Request
from clipper.errors import InvalidArgument
from clipper.worker.frontend.http.responses import answer as answer_of

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def read(*pieces: bytes) -> Answer | None:
    reader = AnswerReader()
    found = None
    for piece in pieces:
        assert found is None
        found = reader.feed(piece)
    return found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:1337/", ("host", 1337, False, "")),
        ("http://host/a b/", ("host", 80, False, "/a%20b")),
        ("https://[::1]", ("::1", 443, True, "")),
        ("HTTP://Bücher.de:1", ("xn--bcher-kva.de", 1, False, "")),
    ],
)
def test_addresses(url: str, expected: tuple[object, ...]) -> None:
    found = Address.parse(url)
    assert (found.host, found.port, found.is_tls, found.path) == expected


@pytest.mark.parametrize(
    "url", ["", "host:1337", "ftp://host", "http://", "http://host:x", "http://h:99999", "http://[1"]
)
def test_what_is_not_an_address(url: str) -> None:
    with pytest.raises(InvalidArgument, match="http://HOST:PORT"):
        Address.parse(url)


def test_a_request() -> None:
    request = Request("POST", "/app/predict", (b"{}", b"\0"), "a: b\r\n")
    expected = b"POST /p/app/predict HTTP/1.1\r\nhost: [::1]:80\r\na: b\r\ncontent-length: 3\r\n\r\n{}\0"
    assert request.encode(Address.parse("http://[::1]/p")) == expected


def test_an_answer_in_pieces_of_a_byte() -> None:
    assert read(*(bytes([each]) for each in OK)) == Answer(200, b"{}", "", closes=False)


def test_an_answer_in_chunks_after_an_interim_one() -> None:
    chunked = b"HTTP/1.1 503 No\r\nRetry-After: 7\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    assert read(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked) == Answer(503, b"{}", "7", closes=False)


def test_answers_after_which_the_connection_is_of_no_use() -> None:
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    for answer in (closing, OK + OK, OK + b"rubbish", OK.replace(b"1.1", b"1.0")):
        assert read(answer) == Answer(200, b"{}", "", closes=True), answer


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\0\x02\x02\x50",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_not_an_answer(answer: bytes) -> None:
    with pytest.raises(BadAnswer, match="not HTTP"):
        read(answer)


def test_what_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "MAX_ANSWER_BYTES", 200_000)
    header = b"x: " + b"y" * 1000 + b"\r\n"
    with pytest.raises(BadAnswer, match="over 65536 bytes"):
        read(b"HTTP/1.1 200 OK\r\n", *[header] * 100)
    with pytest.raises(BadAnswer, match="over 65536 bytes"):
        read(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 5000)
    with pytest.raises(BadAnswer, match="over 200000 bytes"):
        read(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", *[bytes(1000)] * 300)
    with pytest.raises(BadAnswer, match="over 200000 bytes"):
        read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n" * 100] * 500)


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=6),
    st.sampled_from([200, 404, 503]),
)
def test_however_it_is_cut_and_whether_its_head_came_before(bodies: list[bytes], cuts: list[int], status: int) -> None:
    for body in bodies:
        whole = answer_of(status, body)
        places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
        reader = AnswerReader()
        found = [reader.feed(whole[start:end]) for start, end in pairwise(places)]
        assert found == [None] * (len(found) - 1) + [Answer(status, body, "1" if status == 503 else "")]


def test_a_known_head_reads_no_other_answer() -> None:
    """Nothing that came before decides how chunks, or a second answer, are read."""
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for _ in range(2):
        assert read(OK) == Answer(200, b"{}")
        assert read(chunked + b"1\r\n{\r\n0\r\n\r\n") == Answer(200, b"{")
        assert read(chunked + b"2\r\n{}\r\n0\r\n\r\n") == Answer(200, b"{}")
        assert read(OK + OK) == Answer(200, b"{}", closes=True)
        assert read(OK[:-1], OK[-1:]) == Answer(200, b"{}")


def test_a_server_that_varies_its_heads_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[bytes, tuple[int, Answer]] = {}
    monkeypatch.setattr(http1, "_known", known)
    monkeypatch.setattr(http1, "MAX_KNOWN_HEADS", 10)
    for number in range(100):
        read(b"HTTP/1.1 200 OK\r\nx: %d\r\ncontent-length: 0\r\n\r\n" % number)
    assert len(known) == 10
