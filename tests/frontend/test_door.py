"""The door, with a loop and a clock that are simulated; and connections that stand before it."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from fake_transport import FakeTransport, Peer
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.frontend import limits
from clipper.frontend.door import LONGEST_TURN_S, PATIENCE_SHARE_OF_SLO, Door
from clipper.frontend.exchange import Exchange
from clipper.frontend.port import Port
from serving import post

NEVER_S = float("inf")
SLO_S = 0.02
PATIENCE_S = SLO_S * PATIENCE_SHARE_OF_SLO


class Loop:
    """A worker's loop that does nothing but read and take in."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.given_out = 0
        self.door = Door(self.soon.append, lambda: self.now_s, self._give_out)
        self.door.set_slo(SLO_S)
        self.ended: list[Request] = []

    def _give_out(self) -> None:
        self.given_out += 1

    def read(self, request: "Request") -> None:
        """A connection has read a request: as ``Connection`` does."""
        request.arrived_s = self.now_s
        if self.now_s < self.door.closes_s or self.door.opens(self.now_s):
            request.enter(is_late=False)
        else:
            self.door.wait(request)

    def end_turn(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()

    def settle(self) -> None:
        while self.soon:
            self.end_turn()
            self.now_s += 1e-4


class Request:
    def __init__(self, loop: Loop, due_s: float = 0.0, patience_s: float = PATIENCE_S, cost_s: float = 35e-6) -> None:
        self.loop, self.due_s, self.patience_s, self.cost_s = loop, due_s, patience_s, cost_s
        self.arrived_s = 0.0
        self.asks: object = "app"
        self.waited_s: float | None = None
        self.is_late = False

    def enter(self, *, is_late: bool) -> None:
        assert self.waited_s is None, "entered twice"
        self.is_late = is_late
        self.waited_s = self.loop.now_s - self.arrived_s
        self.loop.now_s += 14e-6 if is_late else self.cost_s
        self.loop.ended.append(self)


def overload(per_s: float, seconds: float, read_s: float = 8e-6) -> Loop:
    """Requests that come evenly, each read by the first poll after it came."""
    loop = Loop()
    number, last = 0, int(per_s * seconds)
    while number < last:
        if not loop.soon and number / per_s > loop.now_s:
            loop.now_s = number / per_s
        while number < last and number / per_s <= loop.now_s:
            due_s = number / per_s
            number += 1
            loop.now_s += read_s
            loop.read(Request(loop, due_s))
        loop.end_turn()
    loop.settle()
    return loop


def good(loop: Loop, begin_s: float) -> list[Request]:
    """Those that were taken in with half of their SLO left."""
    return [
        request
        for request in loop.ended
        if not request.is_late and request.due_s >= begin_s and request.arrived_s - request.due_s < SLO_S / 4
    ]


def test_below_what_the_worker_can_do_nothing_is_late_and_all_is_in_order() -> None:
    loop = overload(20_000, 1.0)
    assert len(loop.ended) == 20_000
    assert not any(request.is_late for request in loop.ended)
    assert [request.due_s for request in loop.ended] == sorted(request.due_s for request in loop.ended)


def test_over_what_the_worker_can_do_it_takes_in_what_time_allows() -> None:
    # Of a second each request costs 8 us to read, and then 35 to take in or 14 to shed.
    for per_s in (26_000, 30_000, 36_000):
        loop = overload(per_s, 2.0)
        feasible = (1 - per_s * 22e-6) / (35e-6 - 14e-6)
        taken = good(loop, 1.0)
        assert len(taken) > 0.9 * min(feasible, per_s), (per_s, len(taken), feasible)
        assert all(request.waited_s is not None and request.waited_s <= PATIENCE_S for request in taken)
        assert len(loop.ended) == per_s * 2


def test_far_over_it_half_of_the_door_s_time_is_still_for_those_that_can_be_answered() -> None:
    loop = overload(80_000, 0.5, read_s=2e-6)
    taken = [request for request in loop.ended if not request.is_late]
    late = [request for request in loop.ended if request.is_late]
    assert len(taken) * 35e-6 > 0.3 * (len(taken) * 35e-6 + len(late) * 14e-6)


def test_a_turn_takes_in_for_a_bounded_time() -> None:
    loop = Loop()
    for _ in range(1000):
        loop.read(Request(loop))
    assert len(loop.ended) * 35e-6 < 2 * LONGEST_TURN_S + 35e-6
    before_s, turns = loop.now_s, 0
    while loop.soon:
        loop.end_turn()
        turns += 1
        assert loop.now_s - before_s <= LONGEST_TURN_S + 35e-6
        before_s = loop.now_s
    assert len(loop.ended) == 1000
    assert loop.given_out >= turns - 1, "batches leave with each turn that took some in"


def test_the_last_come_first_once_the_first_have_waited_for_long() -> None:
    loop = Loop()
    old = [Request(loop) for _ in range(500)]
    for request in old:
        loop.read(request)
    loop.now_s += PATIENCE_S * 0.6
    new = [Request(loop) for _ in range(20)]
    for request in new:
        loop.read(request)
    loop.end_turn()
    assert all(request.waited_s is not None for request in new)
    assert any(request.waited_s is None for request in old)
    loop.settle()
    assert Counter(request.is_late for request in new) == {False: 20}


def test_what_is_no_query_is_never_late_and_gets_its_share_however_many_queries_wait() -> None:
    loop = Loop()
    for _ in range(3000):
        loop.read(Request(loop))
    patient = [Request(loop, patience_s=NEVER_S) for _ in range(20)]
    for request in patient:
        loop.read(request)
    for _ in range(5):
        loop.end_turn()
    assert all(request.waited_s is not None and not request.is_late for request in patient)


def test_a_flood_of_one_application_does_not_make_another_wait() -> None:
    loop = Loop()
    other: list[Request] = []
    for turn in range(200):
        for _ in range(200):
            loop.read(Request(loop))
        if turn % 5 == 0:
            other.append(Request(loop))
            other[-1].asks = "other"
            loop.read(other[-1])
        loop.end_turn()
    loop.settle()
    assert any(request.is_late for request in loop.ended)
    assert not any(request.is_late for request in other)
    assert all(request.waited_s is not None and request.waited_s < 3 * LONGEST_TURN_S for request in other)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([PATIENCE_S, 10 * PATIENCE_S, NEVER_S]), st.floats(0, 0.03)),
        max_size=30,
    )
)
def test_each_enters_once_and_none_is_told_late_before_its_time(steps: list[tuple[int, float, float]]) -> None:
    loop, requests = Loop(), []
    for count, patience_s, passed_s in steps:
        for _ in range(count):
            requests.append(Request(loop, patience_s=patience_s, cost_s=1e-4))
            loop.read(requests[-1])
        loop.end_turn()
        loop.now_s += passed_s
    loop.settle()
    for request in requests:
        assert request.waited_s is not None
        assert not request.is_late or request.waited_s > request.patience_s


# -- connections ---------------------------------------------------------------------------------------------


class Told:
    """An endpoint that answers what it was told."""

    methods = ("POST",)
    max_body_bytes = limits.MAX_BODY_BYTES
    slo_s = SLO_S

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.answer(200, b'["%b",%b]' % (bytes(body), b"true" if is_late else b"false"))


class Before:
    """A server whose door is closed until the test lets it open, and whose clock the test sets."""

    def __init__(self) -> None:
        self.port = Port()
        self.port.serve({b"/told/predict": Told()})
        self.soon: deque[Callable[[], None]] = deque()
        self.now_s = 1000.0
        self.port.now_s = lambda: self.now_s
        self.port.door = Door(self.soon.append, self.port.now_s, lambda: None)
        peer = Peer(self.port)
        peer.send(ASKED)  # from now on its head is known
        peer.leave()
        self.soon.clear()
        self.port.door = Door(self.soon.append, self.port.now_s, lambda: None)
        self.port.door.opens(self.now_s)
        self.now_s += 1.0

    def let_in(self) -> None:
        while self.soon:
            self.soon.popleft()()


ASKED = post("/told/predict", b"1")


def bodies(peer: Peer) -> list[bytes]:
    return [response.body for response in peer.responses]


def test_a_request_waits_before_a_closed_door_and_is_answered_in_its_turn() -> None:
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
