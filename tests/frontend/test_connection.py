"""One connection without a socket: every split of the bytes, order, limits, time-outs, and what a client does wrong."""

import asyncio
import itertools
import logging
from dataclasses import dataclass
from random import Random

import pytest
from fake_transport import Broken, Echo, Later, Peer, run
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.frontend import limits
from clipper.frontend.endpoints import Health
from clipper.frontend.server import QueryServer
from serving import post

ECHO = post("/echo/predict", b"hello")
HELLO = b'"%b"' % b"hello".hex().encode()


def later() -> tuple[Later, dict[bytes, Later]]:
    endpoint = Later()
    return endpoint, {b"/later/predict": endpoint}


# -- every way the same bytes can arrive -------------------------------------------------------------------


def test_a_request_split_anywhere_gets_the_same_answer() -> None:
    async def test(server: QueryServer) -> None:
        for _ in range(2):  # the second time its head is known
            for middle in range(len(ECHO) + 1):
                peer = Peer(server)
                peer.send(*filter(None, (ECHO[:middle], ECHO[middle:])))
                assert [response.body for response in peer.responses] == [HELLO]
                peer.leave()
        assert len(server.known_heads) == 1

    run(test)


def test_a_request_byte_by_byte() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(*(bytes([byte]) for byte in ECHO * 3))
        assert [response.body for response in peer.responses] == [HELLO] * 3

    run(test)


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


@settings(max_examples=600, deadline=None)
@given(
    calls=st.lists(ECHO_CALLS | OTHER_CALLS, min_size=1, max_size=6),
    places=st.lists(st.lists(st.integers(0, 1 << 20), max_size=12), min_size=3, max_size=3),
)
def test_same_requests_in_any_pieces_get_the_same_answers(calls: list[Call], places: list[list[int]]) -> None:
    data = b"".join(call.data for call in calls)
    expected = expected_of(calls)

    async def test(server: QueryServer) -> None:
        # One by one first, so that some heads are known for the rounds after it.
        rounds = [[call.data for call in calls], *(cut(data, each) for each in places)]
        for pieces in rounds:
            peer = Peer(server)
            await peer.send_in_turns(pieces)
            got = [(response.status, response.body) for response in peer.responses]
            assert [status for status, _ in got] == [status for status, _ in expected]
            assert [body for body, (_, want) in zip([b for _, b in got], expected) if want is not None] == [
                want for _, want in expected if want is not None
            ]
            assert peer.transport.has_ended == any(call.closes for call in calls)
            peer.leave()
        assert (server.connections, server.buffered_bytes) == (0, 0)

    run(test, {b"/echo/predict": Echo(), b"/health/live": Health()})


# -- order -------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 12), order=st.randoms(use_true_random=False))
def test_answers_go_out_in_the_order_of_the_requests(count: int, order: Random) -> None:
    endpoint, paths = later()

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(b"".join(post("/later/predict", bytes([number])) for number in range(count)))
        indices = list(range(count))
        order.shuffle(indices)
        for done, index in enumerate(indices, 1):
            endpoint.answer(index)
            ready = sum(1 for _ in itertools.takewhile(indices[:done].__contains__, range(count)))
            assert [response.json for response in peer.responses] == [f"{number:02x}" for number in range(ready)]

    run(test, paths)


def test_error_waits_for_the_answers_before_it_and_ends_the_connection() -> None:
    endpoint, paths = later()

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(post("/later/predict", b"a") + b"garbage\r\n\r\n" + post("/later/predict", b"b"))
        assert peer.responses == []
        endpoint.answer(0)
        first, second = peer.responses
        assert (first.status, second.status, second.headers["connection"]) == (200, 400, "close")
        assert peer.transport.has_ended
        assert endpoint.bodies == [b"a"]

    run(test, paths)


def test_continue_waits_for_the_answers_before_it() -> None:
    endpoint, paths = later()

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(post("/later/predict", b"a") + post("/later/predict", b"b", Expect="100-continue")[:-1])
        assert peer.responses == []
        endpoint.answer(0)
        assert [response.status for response in peer.responses] == [200, 100]
        peer.send(b"b")
        endpoint.answer(1)
        assert [response.status for response in peer.responses] == [200, 100, 200]

    run(test, paths)


# -- limits ------------------------------------------------------------------------------------------------


def many_headers(count: int) -> bytes:
    return b"".join(b"Name-%04d: %b\r\n" % (number, b"v" * 80) for number in range(count))


@pytest.mark.parametrize(
    "data",
    [
        b"POST /echo/predict HTTP/1.1\r\n" + many_headers(200) + b"\r\n",
        b"POST /echo/predict HTTP/1.1\r\nCookie: " + b"c" * 17_000 + b"\r\n\r\n",
        b"POST /echo/predict HTTP/1.1\r\n" + b"n" * 40_000,
        b"POST /echo/predict HTTP/1.1\r\nCookie: " + b"c" * 40_000,
        b"POST /" + b"u" * 17_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /" + b"u" * 40_000,
        b"POST /echo/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + many_headers(200),
        b"POST /echo/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: " + b"t" * 40_000,
        b"POST /echo/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"e" * 40_000,
    ],
)
@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_flood_of_head_bytes_is_refused(data: bytes, piece: int) -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(*(data[start : start + piece] for start in range(0, len(data), piece)))
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (431, "head_too_large")
        assert peer.transport.has_ended
        assert server.refused == {"head_too_large": 1}

    run(test)


@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_head_below_its_bound_is_read(piece: int) -> None:
    data = b"POST /echo/predict HTTP/1.1\r\n" + many_headers(160) + b"Content-Length: 5\r\n\r\nhello"

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(*(data[start : start + piece] for start in range(0, len(data), piece)))
        assert [response.body for response in peer.responses] == [HELLO]

    run(test)


def test_many_large_requests_at_once_are_no_flood_of_head_bytes() -> None:
    data = b"".join(post("/echo/predict", bytes([number]) * 5000) for number in range(50))

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        await peer.send_in_turns([data[:200_030], data[200_030:]])
        assert [response.status for response in peer.responses] == [200] * 50

    run(test)


def test_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(b"POST /echo/predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (limits.MAX_BODY_BYTES + 1))
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (413, "too_large")
        assert peer.transport.has_ended

    run(test)


def test_chunked_body_over_the_limit_is_refused_and_let_go() -> None:
    piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(b"POST /echo/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(limits.MAX_BODY_BYTES >> 20):
            peer.send(piece)
        assert peer.responses == [] and server.buffered_bytes == limits.MAX_BODY_BYTES
        peer.send(piece)
        (response,) = peer.responses
        assert response.status == 413
        assert server.buffered_bytes == 0

    run(test)


def test_all_bodies_together_have_a_bound() -> None:
    start = post("/echo/predict", b"x" * 1000)[:-1]

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        server.buffered_bytes = limits.MAX_BUFFERED_BYTES - 500  # what other connections hold
        peer.send(start)
        (response,) = peer.responses
        assert (response.status, response.json["error"], response.headers["retry-after"]) == (503, "overloaded", "1")
        assert server.buffered_bytes == limits.MAX_BUFFERED_BYTES - 500

    run(test)


def test_connection_over_the_limit_is_told_so() -> None:
    async def test(server: QueryServer) -> None:
        first, second, third = Peer(server), Peer(server), Peer(server)
        third.send(ECHO)
        (response,) = third.responses
        assert (response.status, response.json["error"]) == (503, "overloaded")
        assert third.transport.has_ended
        for peer in (first, second):
            peer.send(ECHO)
            assert [response.status for response in peer.responses] == [200]
        third.leave()
        first.leave()
        fourth = Peer(server)
        fourth.send(ECHO)
        assert [response.status for response in fourth.responses] == [200]

    run(test, max_connections=2)


# -- clients that do not take their answers, and those that leave --------------------------------------------


def test_reading_pauses_while_too_many_answers_are_due() -> None:
    endpoint, paths = later()
    request = post("/later/predict", b"x")

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(request)  # its head is known from here on
        peer.send(request * 500)
        assert peer.transport.is_paused
        assert len(endpoint.exchanges) == limits.MAX_PIPELINED + 1
        answered = 0
        while answered < 501:
            assert len(endpoint.exchanges) - answered <= limits.MAX_PIPELINED + 1
            endpoint.answer(answered)
            answered += 1
            await asyncio.sleep(0)
        assert not peer.transport.is_paused
        assert len(peer.responses) == 501

    run(test, paths)


@pytest.mark.parametrize("request_", [ECHO, post("/echo/predict?x", b"hello", Expect="100-continue")])
def test_nothing_more_is_answered_while_the_client_does_not_read(request_: bytes) -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(request_)
        before = len(peer.responses)
        peer.connection.pause_writing()
        assert peer.transport.is_paused
        peer.send(request_ * 2000)
        await asyncio.sleep(0)
        assert len(peer.responses) - before <= 2 * limits.PARSED_BYTES // len(request_)
        peer.connection.resume_writing()
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(peer.responses) == before * 2001
        assert not peer.transport.is_paused

    run(test)


def test_client_that_leaves_cancels_its_queries() -> None:
    endpoint, paths = later()

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(post("/later/predict", b"a") + post("/later/predict", b"b") + post("/later/predict", b"cc")[:-1])
        peer.leave()
        assert endpoint.cancelled == [b"a", b"b"]
        endpoint.answer(0)  # too late, and harmless
        assert peer.responses == []
        assert (server.connections, server.buffered_bytes) == (0, 0)

    run(test, paths)


def test_half_closed_client_still_gets_its_answers() -> None:
    endpoint, paths = later()

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(post("/later/predict", b"a") + post("/later/predict", b"bb")[:-1])
        assert peer.connection.eof_received()
        endpoint.answer(0)
        assert [response.status for response in peer.responses] == [200]
        assert peer.transport.has_ended
        for sweep in range(1, limits.LINGER_SWEEPS + 2):
            peer.connection.sweep(sweep)
        assert peer.transport.is_closed

    run(test, paths)


def test_client_that_ends_without_a_request_is_closed() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(ECHO + ECHO[:-1])
        assert not peer.connection.eof_received()
        assert server.buffered_bytes == 0

    run(test)


# -- time-outs ---------------------------------------------------------------------------------------------


def sweep_until_closed(server: QueryServer, peer: Peer, at_most: int) -> int:
    """How many sweeps it took."""
    for number in range(1, at_most + 1):
        server.sweeps += 1
        peer.connection.sweep(server.sweeps)
        if peer.transport.is_closed:
            return number
    raise AssertionError(f"not closed after {at_most} sweeps")


@pytest.mark.parametrize("first", [b"", ECHO])
def test_idle_connection_is_closed(first: bytes) -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        if first:
            peer.send(first)
        assert sweep_until_closed(server, peer, 1000) == limits.IDLE_TIMEOUT_SWEEPS + 1
        assert not peer.transport.is_aborted

    run(test)


@pytest.mark.parametrize("start", [b"P", ECHO[:30], ECHO[:-1], post("/echo/predict", b"x" * 100)[:-50]])
def test_request_that_does_not_end_is_refused_however_it_trickles(start: bytes) -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(start)
        for number in range(limits.REQUEST_TIMEOUT_SWEEPS):
            server.sweeps += 1
            peer.connection.sweep(server.sweeps)
            if start.endswith(b"x") and number < 20:
                peer.send(b"x")
        assert peer.responses == []
        server.sweeps += 1
        peer.connection.sweep(server.sweeps)
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (408, "request_timeout")
        assert sweep_until_closed(server, peer, 10) == limits.LINGER_SWEEPS + 1

    run(test)


def test_client_that_goes_on_sending_after_a_refusal_is_closed_all_the_same() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(b"garbage\r\n\r\n" + ECHO)
        for _ in range(limits.LINGER_SWEEPS + 1):
            peer.send(ECHO, b"POST /")
            server.sweeps += 1
            peer.connection.sweep(server.sweeps)
        assert peer.transport.is_closed
        assert [response.status for response in peer.responses] == [400]

    run(test)


def test_request_after_the_one_that_closes_does_not_keep_the_connection() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(b"POST /echo/predict HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n" + ECHO[:50])
        assert [response.headers.get("connection") for response in peer.responses] == ["close"]
        assert sweep_until_closed(server, peer, 10) == limits.LINGER_SWEEPS + 1

    run(test)


def test_connection_that_waits_for_its_answer_is_not_idle() -> None:
    endpoint, paths = later()

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(post("/later/predict", b"a"))
        for _ in range(1000):
            server.sweeps += 1
            peer.connection.sweep(server.sweeps)
        assert not peer.transport.is_closed
        endpoint.answer(0)
        assert [response.status for response in peer.responses] == [200]

    run(test, paths)


def test_client_that_never_takes_its_answer_is_cut_off() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(ECHO)
        peer.connection.pause_writing()
        assert sweep_until_closed(server, peer, 1000) == limits.REQUEST_TIMEOUT_SWEEPS + 1
        assert peer.transport.is_aborted

    run(test)


# -- draining, known heads, bugs -----------------------------------------------------------------------------


def test_answer_while_draining_says_that_it_is_the_last() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(ECHO)
        await server.drain(timeout_s=0.0)
        after = Peer(server)
        after.send(ECHO)
        assert [response.headers.get("connection") for response in after.responses] == ["close"]
        assert peer.transport.is_closed

    run(test)


def test_known_heads_are_bounded() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        for number in range(3 * limits.MAX_KNOWN_HEADS):
            peer.send(post("/echo/predict", b"hello", X=str(number)))
        assert 0 < len(server.known_heads) <= limits.MAX_KNOWN_HEADS
        peer.send(post("/echo/predict", b"hello", X="x" * limits.MAX_KNOWN_HEAD_BYTES))
        assert max(map(len, server.known_heads)) <= limits.MAX_KNOWN_HEAD_BYTES
        assert [response.body for response in peer.responses] == [HELLO] * (3 * limits.MAX_KNOWN_HEADS + 1)

    run(test)


def test_known_heads_are_forgotten_when_what_is_served_changes() -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(ECHO, ECHO)
        server.serve({})
        peer.send(ECHO)
        assert [response.status for response in peer.responses] == [200, 200, 404]

    run(test)


def test_bug_costs_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        for _ in range(2):  # the second time its head is known
            peer.send(post("/broken/predict", b"x"), ECHO)
        assert [response.status for response in peer.responses] == [500, 200, 500, 200]
        assert peer.responses[0].json["error"] == "internal_error"

    with caplog.at_level(logging.ERROR):
        run(test, {b"/broken/predict": Broken(), b"/echo/predict": Echo()})
    assert caplog.text.count("RuntimeError: on purpose") == 2


# -- fuzzing -----------------------------------------------------------------------------------------------

FRAGMENTS = [b"\r\n", b"\r\n\r\n", b"\n", b"\0", b":", b" ", b"0\r\n\r\n", b"HTTP/1.1", b"Content-Length: 5\r\n"]
FRAGMENTS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"\xff\xfe",
    b"99999999999999999999",
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "repeat"]),
        st.integers(0, 1 << 16),
        st.binary(min_size=1, max_size=6) | st.sampled_from(FRAGMENTS),
    ),
    min_size=1,
    max_size=5,
)


def mutated(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, text in edits:
        at = place % (len(data) + 1)
        match kind:
            case "insert":
                data = data[:at] + text + data[at:]
            case "delete":
                data = data[:at] + data[at + len(text) :]
            case "replace":
                data = data[:at] + text + data[at + len(text) :]
            case "repeat":
                data = data[:at] + data[max(0, at - 40) : at] * 2 + data[at:]
    return data


@settings(max_examples=4000, deadline=None)
@given(
    good=st.lists(ECHO_CALLS, max_size=2),
    bad=st.lists(ECHO_CALLS | OTHER_CALLS, min_size=1, max_size=3),
    edits=EDITS,
    places=st.lists(st.integers(0, 1 << 16), max_size=8),
)
def test_mutated_requests_hurt_only_themselves(
    good: list[Call], bad: list[Call], edits: list[tuple[str, int, bytes]], places: list[int]
) -> None:
    garbled = mutated(b"".join(call.data for call in bad), edits)
    expected = expected_of(good)

    async def test(server: QueryServer) -> None:
        peer = Peer(server)
        peer.send(ECHO)
        await peer.send_in_turns(cut(b"".join(call.data for call in good) + garbled, places))
        answers = peer.responses
        assert answers[0].body == HELLO
        assert [(each.status, each.body) for each in answers[1 : len(expected) + 1]] == expected
        assert all(each.status != 500 for each in answers)
        assert all(set(each.json) == {"error", "cause"} for each in answers if each.status >= 400)
        peer.connection.eof_received()
        peer.leave()
        after = Peer(server)
        after.send(ECHO)
        assert [response.body for response in after.responses] == [HELLO]
        assert (server.connections, server.buffered_bytes) == (1, 0)

    run(test, {b"/echo/predict": Echo(), b"/health/live": Health()})
