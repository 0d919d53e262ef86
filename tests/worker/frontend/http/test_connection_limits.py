"""One connection without a socket: its bounds and time-outs, and what a client does wrong."""

import asyncio

import pytest

from clipper.worker.frontend import limits
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.port import Port
from tests.serving import post
from tests.worker.frontend.fake_transport import Peer, later, run
from tests.worker.frontend.http_calls import ECHO, HELLO

# -- limits ----------------------------------------------------------------------------------------------


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
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(*(data[start : start + piece] for start in range(0, len(data), piece)))
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (431, "head_too_large")
        assert peer.transport.has_ended
        assert port.refused == {"head_too_large": 1}

    run(test)


@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_head_below_its_bound_is_read(piece: int) -> None:
    data = b"POST /echo/predict HTTP/1.1\r\n" + many_headers(160) + b"Content-Length: 5\r\n\r\nhello"

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(*(data[start : start + piece] for start in range(0, len(data), piece)))
        assert [response.body for response in peer.responses] == [HELLO]

    run(test)


def test_many_large_requests_at_once_are_no_flood_of_head_bytes() -> None:
    data = b"".join(post("/echo/predict", bytes([number]) * 5000) for number in range(50))

    async def test(port: Port) -> None:
        peer = Peer(port)
        await peer.send_in_turns([data[:200_030], data[200_030:]])
        assert [response.status for response in peer.responses] == [200] * 50

    run(test)


def test_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(b"POST /echo/predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (limits.MAX_BODY_BYTES + 1))
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (413, "too_large")
        assert peer.transport.has_ended

    run(test)


def test_chunked_body_over_the_limit_is_refused_and_let_go() -> None:
    piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(b"POST /echo/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(limits.MAX_BODY_BYTES >> 20):
            peer.send(piece)
        assert peer.responses == [] and port.budget.held_bytes == limits.MAX_BODY_BYTES
        peer.send(piece)
        (response,) = peer.responses
        assert response.status == 413
        assert port.budget.held_bytes == 0
        assert port.freed_large_body

    run(test)


def test_all_bodies_together_have_a_bound() -> None:
    start = post("/echo/predict", b"x" * 1000)[:-1]

    async def test(port: Port) -> None:
        peer = Peer(port)
        port.budget.held_bytes = limits.MAX_HELD_BYTES - 500  # what other connections hold
        peer.send(start)
        (response,) = peer.responses
        assert (response.status, response.json["error"], response.headers["retry-after"]) == (503, "overloaded", "1")
        assert port.budget.held_bytes == limits.MAX_HELD_BYTES - 500

    run(test)


def test_connection_over_the_limit_is_told_so() -> None:
    async def test(port: Port) -> None:
        first, second = Peer(port), Peer(port)
        for peer in (first, second):
            peer.send(ECHO[:-1])
        third = Peer(port)
        third.send(ECHO)
        (response,) = third.responses
        assert (response.status, response.json["error"]) == (503, "overloaded")
        assert third.transport.has_ended
        for peer in (first, second):
            peer.send(ECHO[-1:])
            assert [response.status for response in peer.responses] == [200]
        third.leave()
        first.leave()
        fourth = Peer(port)
        fourth.send(ECHO)
        assert [response.status for response in fourth.responses] == [200]

    run(test, max_connections=2)


# -- clients that do not take their answers, and those that leave ----------------------------------------


def test_reading_pauses_while_too_many_answers_are_due() -> None:
    endpoint, paths = later()
    request = post("/later/predict", b"x")

    async def test(port: Port) -> None:
        peer = Peer(port)
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
    async def test(port: Port) -> None:
        peer = Peer(port)
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

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(post("/later/predict", b"a") + post("/later/predict", b"b") + post("/later/predict", b"cc")[:-1])
        peer.leave()
        assert endpoint.cancelled == [b"a", b"b"]
        endpoint.answer(0)  # too late, and harmless
        assert peer.responses == []
        assert (len(port.members), port.budget.held_bytes) == (0, 0)

    run(test, paths)


def test_half_closed_client_still_gets_its_answers() -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(post("/later/predict", b"a") + post("/later/predict", b"bb")[:-1])
        assert peer.connection.eof_received()
        endpoint.answer(0)
        assert [response.status for response in peer.responses] == [200]
        assert peer.transport.has_ended
        for sweep in range(1, limits.LINGER_SWEEPS + 2):
            peer.connection.sweep(sweep)
        assert peer.transport.is_closed

    run(test, paths)


def test_a_client_that_sends_no_more_is_asked_once_whether_it_still_reads() -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        peer, polite = Peer(port), Peer(port)
        peer.send(post("/later/predict", b"a"))
        polite.send(post("/later/predict", b"b", Connection="close"))
        for sweeps in range(1, 6):
            if sweeps == 2:
                assert peer.connection.eof_received()
                assert polite.connection.eof_received()
            port.sweeps = sweeps
            for each in (peer, polite):
                each.connection.sweep(sweeps)
        assert peer.transport.written == responses.CONTINUE
        # It may speak HTTP/1.0, which has no such answers.
        assert not polite.transport.written
        endpoint.answer(0)
        assert peer.transport.written.startswith(responses.CONTINUE + b"HTTP/1.1 200 ")

    run(test, paths)


def test_client_that_ends_without_a_request_is_closed() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(ECHO + ECHO[:-1])
        assert not peer.connection.eof_received()
        assert port.budget.held_bytes == 0

    run(test)


# -- time-outs -------------------------------------------------------------------------------------------


def sweep_until_closed(port: Port, peer: Peer, at_most: int) -> int:
    """How many sweeps it took."""
    for number in range(1, at_most + 1):
        port.sweeps += 1
        peer.connection.sweep(port.sweeps)
        if peer.transport.is_closed:
            return number
    raise AssertionError(f"not closed after {at_most} sweeps")


@pytest.mark.parametrize("first", [b"", ECHO])
def test_idle_connection_is_closed(first: bytes) -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        if first:
            peer.send(first)
        assert sweep_until_closed(port, peer, 1000) == limits.IDLE_TIMEOUT_SWEEPS + 1
        assert not peer.transport.is_aborted

    run(test)


@pytest.mark.parametrize("start", [b"P", ECHO[:30], ECHO[:-1], post("/echo/predict", b"x" * 100)[:-50]])
def test_request_that_does_not_end_is_refused_however_it_trickles(start: bytes) -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(start)
        for number in range(limits.REQUEST_TIMEOUT_SWEEPS):
            port.sweeps += 1
            peer.connection.sweep(port.sweeps)
            if start.endswith(b"x") and number < 20:
                peer.send(b"x")
        assert peer.responses == []
        port.sweeps += 1
        peer.connection.sweep(port.sweeps)
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (408, "request_timeout")
        assert sweep_until_closed(port, peer, 10) == limits.LINGER_SWEEPS + 1

    run(test)


def test_a_client_that_sends_on_after_a_refusal_is_closed_all_the_same() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(b"garbage\r\n\r\n" + ECHO)
        for _ in range(limits.LINGER_SWEEPS + 1):
            peer.send(ECHO, b"POST /")
            port.sweeps += 1
            peer.connection.sweep(port.sweeps)
        assert peer.transport.is_closed
        assert [response.status for response in peer.responses] == [400]

    run(test)


def test_request_after_the_one_that_closes_does_not_keep_the_connection() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(b"POST /echo/predict HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n" + ECHO[:50])
        assert [response.headers.get("connection") for response in peer.responses] == ["close"]
        assert sweep_until_closed(port, peer, 10) == limits.LINGER_SWEEPS + 1

    run(test)


def test_connection_that_waits_for_its_answer_is_not_idle() -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(post("/later/predict", b"a"))
        for _ in range(1000):
            port.sweeps += 1
            peer.connection.sweep(port.sweeps)
        assert not peer.transport.is_closed
        endpoint.answer(0)
        assert [response.status for response in peer.responses] == [200]

    run(test, paths)


def test_a_large_answer_without_room_comes_before_the_request_behind_it() -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        peer, second = Peer(port), post("/later/predict", b"y" * 1000)
        peer.send(post("/later/predict", b"x"), second[:-500])
        port.budget.bound_bytes = 10_000
        endpoint.exchanges[0].answer(200, bytes(2 * limits.LARGE_ANSWER_BYTES))
        assert [(answer.status, answer.json["error"]) for answer in peer.responses] == [(503, "overloaded")]
        peer.send(second[-500:])
        endpoint.answer(1)
        assert [answer.status for answer in peer.responses] == [503, 200]
        assert port.budget.held_bytes == 0

    run(test, paths)


def test_client_that_never_takes_its_answer_is_cut_off() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(ECHO)
        peer.connection.pause_writing()
        assert sweep_until_closed(port, peer, 1000) == limits.REQUEST_TIMEOUT_SWEEPS + 1
        assert peer.transport.is_aborted

    run(test)
