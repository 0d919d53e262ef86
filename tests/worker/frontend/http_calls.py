"""Requests as bytes, each with what has to come back, for tests that cut, mix and garble them."""

import itertools
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.serving import post

ECHO = post("/echo/predict", b"hello")
HELLO = b'"%b"' % b"hello".hex().encode()


@dataclass(frozen=True)
class Call:
    """A request's bytes, and what has to come back."""

    data: bytes
    status: int
    body: bytes | None = None
    closes: bool = False
    has_interim: bool = False


def echo_call(payload: bytes, head: str, chunks: list[int], version: str = "1.1") -> Call:
    raw = f"POST /echo/predict HTTP/{version}\r\n{head}".encode()
    if chunks:
        data, start = raw + b"Transfer-Encoding: chunked\r\n\r\n", 0
        for size in [*chunks, len(payload)]:
            part = payload[start : start + size]
            start += len(part)
            data += b"%x;name=value\r\n%b\r\n" % (len(part), part) if part else b""
        data += b"0\r\nTrailer: x\r\n\r\n"
    else:
        data = raw + b"Content-Length: %d\r\n\r\n" % len(payload) + payload
    closes = "close" in head or version == "1.0"
    return Call(data, 200, b'"%b"' % payload.hex().encode(), closes, "Expect" in head)


HEADS = st.sampled_from(
    [
        "",
        "Host: localhost\r\n",
        "host: localhost\r\nConnection: keep-alive\r\nAccept: */*\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\nEmpty:\r\n",
        "Expect: 100-continue\r\n",
        "X-Request-Id: a\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "X-Long: " + "x" * 3000 + "\r\n",
        "Connection: close\r\n",
        "Connection: close, Upgrade\r\nUpgrade: h2c\r\n",
    ]
)
ECHO_CALLS = st.builds(
    echo_call,
    st.binary(max_size=40) | st.sampled_from([b"\r\n\r\n", b"x" * 20_000, ECHO, b"0\r\n\r\n"]),
    HEADS,
    st.just([]) | st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from(["1.1"] * 9 + ["1.0"]),
).filter(lambda call: not (b"HTTP/1.0" in call.data and (b"chunked" in call.data or b"Expect" in call.data)))
OTHER_CALLS = st.sampled_from(
    [
        Call(b"GET /health/live HTTP/1.1\r\n\r\n", 200, b'{"status":"live"}'),
        Call(b"GET /echo/predict HTTP/1.1\r\n\r\n", 405),
        Call(b"PUT /echo/predict HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", 405),
        Call(post("/health/live", b""), 405),
        Call(post("/nowhere", b"x"), 404),
        Call(post("/echo/predict?a=b", b"hello"), 200, HELLO),
        Call(post("http://somewhere:1337/echo/predict", b"hello"), 200, HELLO),
        Call(b"OPTIONS * HTTP/1.1\r\n\r\n", 404),
        Call(b"CONNECT localhost:22 HTTP/1.1\r\n\r\n", 405, None, True),
        Call(b"not HTTP\r\n\r\n", 400, None, True),
        Call(post("/echo/predict", b"", Expect="tea"), 417, None, True),
    ]
)


def expected_of(calls: list[Call]) -> list[tuple[int, bytes | None]]:
    expected: list[tuple[int, bytes | None]] = []
    for call in calls:
        if call.has_interim:
            expected.append((100, b""))
        expected.append((call.status, call.body))
        if call.closes:
            break
    return expected


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds) if start < end]
