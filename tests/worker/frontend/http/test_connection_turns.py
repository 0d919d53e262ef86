"""Connections whose requests wait for their turn."""

import asyncio
from collections import deque
from collections.abc import Callable

import pytest

from clipper.base.turn_budget import TurnBudget
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.port import Port
from tests.serving import post
from tests.worker.frontend.fake_transport import FakeTransport, Peer

SLO_S = 0.02


class Told:
    """An endpoint that answers what it was told."""

    methods = ("POST",)
    max_body_bytes = limits.MAX_BODY_BYTES
    slo_s = SLO_S

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.answer(200, b'["%b",%b]' % (bytes(body), b"true" if is_late else b"false"))


class Before:
    """A server with no time until the test gives it some, and whose clock the test sets."""

    def __init__(self) -> None:
        self.port = Port()
        self.port.serve({b"/told/predict": Told()})
        self.soon: deque[Callable[[], None]] = deque()
        self.now_s = 1000.0
        self.port.now_s = lambda: self.now_s
        self.port.turn = TurnBudget(self.soon.append, self.port.now_s)
        peer = Peer(self.port)
        peer.send(ASKED)  # from now on its head is known
        peer.leave()
        self.soon.clear()
        self.port.turn = TurnBudget(self.soon.append, self.port.now_s)
        self.port.turn.is_open(self.now_s)
        self.now_s += 1.0

    def let_in(self) -> None:
        while self.soon:
            self.soon.popleft()()


ASKED = post("/told/predict", b"1")
NEIGHBOURS = post("/neighbour/predict", b"2")


def bodies(peer: Peer) -> list[bytes]:
    return [response.body for response in peer.responses]


def test_a_request_waits_while_there_is_no_time_and_has_its_turn() -> None:
    async def test() -> None:
        before = Before()
        peer = Peer(before.port)
        peer.send(ASKED)
        assert bodies(peer) == []
        assert before.port.budget.held_bytes == len(ASKED)
        before.now_s += SLO_S * 0.1
        before.let_in()
        assert bodies(peer) == [b'["1",false]']
        assert before.port.budget.held_bytes == 0

    asyncio.run(test())


def test_one_that_waited_for_too_long_is_told_so() -> None:
    async def test() -> None:
        before = Before()
        peer = Peer(before.port)
        peer.send(ASKED)
        before.now_s += SLO_S * 0.6
        before.let_in()
        assert bodies(peer) == [b'["1",true]']

    asyncio.run(test())


def test_one_whose_head_is_not_known_waits_without_being_late() -> None:
    async def test() -> None:
        before = Before()
        peer = Peer(before.port)
        peer.send(ASKED.replace(b"\r\n\r\n", b"\r\nX-Own: 1\r\n\r\n"))
        before.now_s += 10.0
        before.let_in()
        assert bodies(peer) == [b'["1",false]']

    asyncio.run(test())


def test_what_comes_while_one_waits_is_read_behind_it_up_to_a_bound() -> None:
    async def test() -> None:
        before = Before()
        peer = Peer(before.port)
        for part in (ASKED[:10], ASKED[10:] + ASKED, post("/told/predict", b"2")):
            peer.send(part)
        assert not peer.transport.is_paused
        peer.send(*[ASKED] * (limits.READ_AHEAD_BYTES // len(ASKED)))
        assert peer.transport.is_paused
        before.let_in()
        assert not peer.transport.is_paused
        assert bodies(peer)[:4] == [b'["1",false]', b'["1",false]', b'["2",false]', b'["1",false]']
        assert len(bodies(peer)) == 3 + limits.READ_AHEAD_BYTES // len(ASKED)
        assert before.port.budget.held_bytes == 0

    asyncio.run(test())


def test_a_client_that_sends_no_more_is_still_answered_what_waits() -> None:
    async def test() -> None:
        before = Before()
        peer = Peer(before.port)
        peer.send(ASKED + ASKED)
        assert peer.connection.eof_received(), "the transport stays open for the answers"
        assert bodies(peer) == []
        before.let_in()
        assert len(bodies(peer)) == 2
        assert peer.transport.has_ended

    asyncio.run(test())


def test_a_client_that_goes_while_it_waits_leaves_nothing_behind() -> None:
    async def test() -> None:
        before = Before()
        peer = Peer(before.port)
        peer.send(ASKED)
        peer.leave()
        assert before.port.budget.held_bytes == 0
        before.let_in()
        assert isinstance(peer.transport, FakeTransport)
        assert not peer.transport.written

    asyncio.run(test())


def test_what_waits_counts_for_the_memory_that_requests_may_hold() -> None:
    async def test() -> None:
        before = Before()
        before.port.budget.bound_bytes = 3 * len(ASKED)
        peers = [Peer(before.port) for _ in range(4)]
        for peer in peers:
            peer.send(ASKED)
        assert [response.status for response in peers[3].responses] == [503]
        before.let_in()
        assert [len(peer.responses) for peer in peers] == [1] * 4
        assert before.port.budget.held_bytes == 0

    asyncio.run(test())


# -- connections that send much at once ---------------------------------------------------------------------------


class Busy(Before):
    """A server where everything takes time: its clock goes on a little whenever somebody looks at it."""

    STEP_S = 20e-6

    def __init__(self) -> None:
        super().__init__()
        self.port.serve({b"/told/predict": Told(), b"/neighbour/predict": Told()})
        for request in (ASKED, NEIGHBOURS):
            peer = Peer(self.port)
            peer.send(request)
            self.let_in()
            peer.leave()
        self.port.now_s = self._look
        self.port.turn = TurnBudget(self.soon.append, self._look)
        self.port.turn.set_slo(SLO_S)

    def _look(self) -> float:
        self.now_s += self.STEP_S
        return self.now_s


MANY = 4000
# The most that one visit takes in here, and one more that it may end with.
IN_A_VISIT = int(limits.VISIT_S / Busy.STEP_S) + 2


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /x HTTP/1.1\r\n\r\n",
        b"GET /told/predict HTTP/1.1\r\nhost: a\r\n\r\n",
        ASKED,
        ASKED.replace(b"\r\n\r\n", b"\r\nX-Own: 1\r\n\r\n"),
        b"POST /told/predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ],
    ids=["not found", "not allowed", "known", "own head", "chunks"],
)
@pytest.mark.parametrize("connections", [1, 5, 30])
def test_others_are_answered_between_the_requests_that_were_sent_at_once(sent: bytes, connections: int) -> None:
    async def test() -> None:
        busy = Busy()
        greedy, many = [Peer(busy.port) for _ in range(connections)], max(MANY // connections, 200)
        for peer in greedy:
            peer.send(sent * many)
            assert peer.transport.written.count(b"HTTP/1.1 ") <= IN_A_VISIT
        asked, turns = 0, 0
        while busy.soon:
            neighbour, before = Peer(busy.port), [peer.transport.written.count(b"HTTP/1.1 ") for peer in greedy]
            if asked < 20:
                asked += 1
                neighbour.send(NEIGHBOURS)
                busy.soon.popleft()()
                assert bodies(neighbour) == [b'["2",false]'], "a query is taken in by the next turn"
            else:
                busy.soon.popleft()()
            turns += 1
            after = [peer.transport.written.count(b"HTTP/1.1 ") for peer in greedy]
            assert all(new - old <= IN_A_VISIT for old, new in zip(before, after, strict=True))
            neighbour.leave()
        assert turns >= many / IN_A_VISIT
        assert [peer.transport.written.count(b"HTTP/1.1 ") for peer in greedy] == [many] * connections
        assert busy.port.budget.held_bytes == 0

    asyncio.run(test())


def test_what_was_sent_at_once_is_not_copied_for_each_request() -> None:
    async def test() -> None:
        busy = Busy()
        peer = Peer(busy.port)
        peer.send(ASKED * MANY)
        held = peer.connection._held
        first = held.data
        for _ in range(5):
            busy.soon.popleft()()
            assert held.data is first
        assert 0 < held.start < len(first)

    asyncio.run(test())
