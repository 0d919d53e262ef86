"""Heads of requests: which of their headers differ in each request, and are left out of what is remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.frontend.http.heads import ids_of, without_varying

PLAIN = b"POST /a/predict HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"


def with_header(line: bytes, before: bytes = b"Content-Length") -> bytes:
    return PLAIN.replace(before, line + b"\r\n" + before)


@pytest.mark.parametrize(
    "line",
    [
        b"X-Request-Id: a",
        b"x-request-id:a",
        b"TraceParent: \t00-a \t",
        b"tracestate: a=1,b=2",
        b"baggage:",
        b"Baggage: x",
    ],
)
def test_a_head_is_the_same_without_what_differs(line: bytes) -> None:
    assert without_varying(with_header(line))[0] == PLAIN
    assert without_varying(with_header(line, b"Host"))[0] == PLAIN


def test_a_plain_head_stays() -> None:
    assert without_varying(PLAIN) == (PLAIN, [])


@pytest.mark.parametrize(
    "line",
    [
        b"X-Request-Id : a",  # llhttp refuses it
        b"X-Request-Id: a\xff",
        b"X-Request-Id: a\x00b",
        b"X-Request-Id: a\r\n goes on",
        b"NotX-Request-Id: a",
        b"Some: X-Request-Id: a",
        b"X-Request-Id",
    ],
)
def test_what_is_not_plainly_such_a_header_stays(line: bytes) -> None:
    head = with_header(line)
    assert without_varying(head) == (head, [])


def test_values_by_name() -> None:
    found = [(b"X-Request-ID", b" a\t"), (b"traceparent", b" p"), (b"TRACESTATE", b"s"), (b"tracestate", b"t")]
    assert ids_of(found) == ([b"a"], [b"p"], [b"s", b"t"])


@given(
    st.lists(
        st.sampled_from([b"\r\n", b" ", b"\t", b":", b"x-request-id", b"traceparent:", b"a", b"\xff"]), max_size=30
    )
)
def test_nothing_else_is_lost(parts: list[bytes]) -> None:
    head = b"".join(parts)
    rest, found = without_varying(head)
    assert len(head) == len(rest) + sum(len(name) + len(value) + 3 for name, value in found)


def test_a_long_head_takes_no_time() -> None:
    for line in (b"X-Request-Id: " + b" " * 60_000, b"X-Request-Id: a\r\n" * 4000, b"\r\n" * 30_000):
        without_varying(with_header(line))
