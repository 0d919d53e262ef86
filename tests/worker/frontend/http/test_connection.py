"""One connection without a socket: every split of the bytes, the order of answers, draining, bugs."""

import asyncio
import gc
import itertools
import logging
import weakref
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.frontend import limits
from clipper.worker.frontend.http.endpoints import live
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.http.server import QueryServer
from tests.example_counts import share_of
from tests.serving import post
from tests.worker.frontend.fake_transport import Broken, Echo, Peer, later, run
from tests.worker.frontend.http_calls import ECHO, ECHO_CALLS, HELLO, OTHER_CALLS, Call, cut, expected_of

# -- every way the same bytes can arrive -----------------------------------------------------------------


def test_a_request_split_anywhere_gets_the_same_answer() -> None:
    async def test(port: Port) -> None:
        for _ in range(2):  # the second time its head is known
            for middle in range(len(ECHO) + 1):
                peer = Peer(port)
                peer.send(*filter(None, (ECHO[:middle], ECHO[middle:])))
                assert [response.body for response in peer.responses] == [HELLO]
                peer.leave()
        assert len(port.known_heads) == 1

    run(test)


def test_a_request_byte_by_byte() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(*(bytes([byte]) for byte in ECHO * 3))
        assert [response.body for response in peer.responses] == [HELLO] * 3

    run(test)


def test_empty_lines_between_requests_are_none() -> None:
    empty = post("/echo/predict", b"")

    async def test(port: Port) -> None:
        first = Peer(port)
        first.send(b"\r\n")
        first.send(b"\r\n", ECHO)
        assert [response.body for response in first.responses] == [HELLO]
        after = Peer(port)
        after.send(empty, b"\r\n\r\n", b"\r\n\r\n", ECHO)
        assert len(after.responses) == 2
        assert all(head.startswith(b"POST") for head in port.known_heads)

    run(test)


@settings(max_examples=share_of(600), deadline=None)
@given(
    calls=st.lists(ECHO_CALLS | OTHER_CALLS, min_size=1, max_size=6),
    places=st.lists(st.lists(st.integers(0, 1 << 20), max_size=12), min_size=3, max_size=3),
)
def test_same_requests_in_any_pieces_get_the_same_answers(calls: list[Call], places: list[list[int]]) -> None:
    data = b"".join(call.data for call in calls)
    expected = expected_of(calls)

    async def test(port: Port) -> None:
        # One by one first, so that some heads are known for the rounds after it.
        rounds = [[call.data for call in calls], *(cut(data, each) for each in places)]
        for pieces in rounds:
            peer = Peer(port)
            await peer.send_in_turns(pieces)
            got = [(response.status, response.body) for response in peer.responses]
            assert [status for status, _ in got] == [status for status, _ in expected]
            assert [body for body, (_, want) in zip([b for _, b in got], expected) if want is not None] == [
                want for _, want in expected if want is not None
            ]
            assert peer.transport.has_ended == any(call.closes for call in calls)
            peer.leave()
        assert (len(port.members), port.budget.held_bytes) == (0, 0)

    run(test, {b"/echo/predict": Echo(), b"/health/live": live()})


# -- order -----------------------------------------------------------------------------------------------


@settings(max_examples=share_of(200), deadline=None)
@given(count=st.integers(1, 12), order=st.randoms(use_true_random=False))
def test_answers_go_out_in_the_order_of_the_requests(count: int, order: Random) -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        peer = Peer(port)
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

    async def test(port: Port) -> None:
        peer = Peer(port)
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

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(post("/later/predict", b"a") + post("/later/predict", b"b", Expect="100-continue")[:-1])
        assert peer.responses == []
        endpoint.answer(0)
        assert [response.status for response in peer.responses] == [200, 100]
        peer.send(b"b")
        endpoint.answer(1)
        assert [response.status for response in peer.responses] == [200, 100, 200]

    run(test, paths)


# -- draining, known heads, bugs -------------------------------------------------------------------------


def test_answer_while_draining_says_that_it_is_the_last() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(ECHO)
        await QueryServer(port).drain(timeout_s=0.0)
        after = Peer(port)
        after.send(ECHO)
        assert [response.headers.get("connection") for response in after.responses] == ["close"]
        assert peer.transport.is_closed

    run(test)


def test_known_heads_are_bounded() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        for number in range(3 * limits.MAX_KNOWN_HEADS):
            peer.send(post("/echo/predict", b"hello", X=str(number)))
        assert 0 < len(port.known_heads) <= limits.MAX_KNOWN_HEADS
        peer.send(post("/echo/predict", b"hello", X="x" * limits.MAX_KNOWN_HEAD_BYTES))
        assert max(map(len, port.known_heads)) <= limits.MAX_KNOWN_HEAD_BYTES
        assert [response.body for response in peer.responses] == [HELLO] * (3 * limits.MAX_KNOWN_HEADS + 1)

    run(test)


def test_known_heads_are_forgotten_when_what_is_served_changes() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(ECHO, ECHO)
        port.serve({}, gone=[b"/echo/predict"])
        peer.send(ECHO)
        assert [response.status for response in peer.responses] == [200, 200, 404]

    run(test)


@pytest.mark.parametrize("heads", [0, 2 * limits.MAX_KNOWN_HEADS])
def test_every_connection_forgets_a_head_that_it_remembers(heads: int) -> None:
    async def test(port: Port) -> None:
        peers = [Peer(port) for _ in range(3)]
        for number, peer in enumerate(peers):
            peer.send(ECHO, ECHO, ECHO[:-number] or ECHO, ECHO[-number:] if number else ECHO)  # known, and parsed anew
        for number in range(heads):
            peers[0].send(post("/echo/predict", b"hello", X=str(number)))
        port.serve({}, gone=[b"/echo/predict"])
        for peer in peers:
            before = [response.status for response in peer.responses]
            peer.send(ECHO)
            assert set(before) == {200} and [response.status for response in peer.responses] == [*before, 404]

    run(test)


@pytest.mark.parametrize("sent", [b"", ECHO, ECHO[:30], b"garbage\r\n\r\n", ECHO * 100])
def test_a_connection_that_has_gone_needs_no_collector(sent: bytes) -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(*filter(None, (sent,)))
        peer.leave()
        gone = weakref.ref(peer.transport)  # which the connection holds
        await asyncio.sleep(0)  # it may have put off to look at what it held
        gc.disable()
        try:
            del peer
            assert gone() is None
        finally:
            gc.enable()

    run(test)


def test_bug_costs_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        for _ in range(2):  # the second time its head is known
            peer.send(post("/broken/predict", b"x"), ECHO)
        assert [response.status for response in peer.responses] == [500, 200, 500, 200]
        assert peer.responses[0].json["error"] == "internal_error"

    with caplog.at_level(logging.ERROR):
        run(test, {b"/broken/predict": Broken(), b"/echo/predict": Echo()})
    assert caplog.text.count("RuntimeError: on purpose") == 2
