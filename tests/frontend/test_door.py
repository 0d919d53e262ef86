"""The door, with a loop and a clock that are simulated; and connections that stand before it."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

import pytest
from fake_transport import FakeTransport, Peer
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.frontend import limits
from clipper.frontend.door import LONGEST_TURN_S, PATIENCE_SHARE_OF_SLO, Door, Line
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


class Greedy(Request):
    """A connection that holds more than it will ever be rid of."""

    def __init__(self, loop: Loop, cost_s: float) -> None:
        super().__init__(loop, cost_s=cost_s)
        self.visits = 0

    def enter(self, *, is_late: bool) -> None:
        self.visits += 1
        self.loop.now_s += self.cost_s
        self.loop.door.wait_again(self)


@pytest.mark.parametrize("connections", [1, 5, 30, 1000])
@pytest.mark.parametrize("visit_s", [20e-6, limits.VISIT_S, 1e-3])
def test_connections_that_hold_more_than_a_visit_takes_make_no_query_wait(connections: int, visit_s: float) -> None:
    loop = Loop()
    greedy = [Greedy(loop, visit_s) for _ in range(connections)]
    for each in greedy:
        loop.door.wait_again(each)
    queries, health = [], []
    for turn in range(500):
        # As many queries as a turn has time for, and now and then one with an unknown head.
        for _ in range(5):
            queries.append(Request(loop))
            loop.read(queries[-1])
        if turn % 3 == 0:
            health.append(Request(loop, patience_s=NEVER_S))
            loop.read(health[-1])
        loop.end_turn()
    assert all(query.waited_s is not None and not query.is_late for query in queries)
    for request in queries + health:
        assert request.waited_s is not None
        # At worst it has just missed a turn, whose visits may end over time by one each.
        assert request.waited_s <= 2 * (LONGEST_TURN_S + visit_s), request.waited_s
    visits = [each.visits for each in greedy]
    assert sum(visits) >= 500, "they have a visit in each turn, too"
    assert max(visits) - min(visits) <= 1, "and the same share each"


@pytest.mark.parametrize("other_cost_s", [20e-6, 110e-6, 400e-6])
@pytest.mark.parametrize("lines", [2, 6])
def test_applications_have_equal_times_however_long_their_visits_are(other_cost_s: float, lines: int) -> None:
    loop, used_s = Loop(), Counter[object]()
    loop.door.set_slo(1.0)
    for _ in range(400):
        for line in range(lines):
            while len(loop.door._lines.get(line, Line(0.0)).visitors) < 200:
                request = Request(loop, patience_s=1e6)
                request.asks, request.cost_s = line, other_cost_s if line else 25e-6
                request.arrived_s = loop.now_s
                loop.door.wait(request)
        before = len(loop.ended)
        loop.end_turn()
        for request in loop.ended[before:]:
            used_s[request.asks] += request.cost_s
    assert max(used_s.values()) - min(used_s.values()) <= 2 * other_cost_s, used_s


def test_an_application_that_was_alone_owes_nothing_to_those_that_come() -> None:
    loop = Loop()
    for _ in range(2000):
        for _ in range(100):
            loop.read(Request(loop, patience_s=1e6))
        loop.end_turn()
    for _ in range(200):
        late = Request(loop, patience_s=1e6)
        late.asks = "other"
        loop.read(late)
    before = len(loop.ended)
    for _ in range(2):
        loop.end_turn()
    asked = Counter(request.asks for request in loop.ended[before:])
    assert abs(asked["app"] - asked["other"]) <= 4, asked


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
NEIGHBOURS = post("/neighbour/predict", b"2")


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
        self.port.door = Door(self.soon.append, self._look, lambda: None)
        self.port.door.set_slo(SLO_S)

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
