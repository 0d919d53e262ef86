"""Connections of gRPC that wait for their turn: what they may take of a turn of the loop, and who waits for whom."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from clipper.base.turn_budget import LONGEST_TURN_S, VISIT_S, TurnBudget
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.calls import Call
from clipper.worker.frontend.rpc.conversation import STREAM_INFER
from tests.worker.frontend.rpc.fake_client import ASKED, FakeClient, Later, data, headers_of, run, serving
from tests.worker.frontend.rpc.http2 import message_frame

LOOK_S = 20e-6


class Busy:
    """A worker whose loop the test turns. Each look at the clock takes time, and a call looks at it."""

    def __init__(self, application: Any = None) -> None:
        self.now_s = 1000.0
        self.server = serving(application=application)
        self.server.port.now_s = self._look
        self.soon: deque[Callable[[], None]] = deque()
        self.server.port.turn = TurnBudget(self.soon.append, self._look)

    def _look(self) -> float:
        self.now_s += LOOK_S
        return self.now_s

    @property
    def calls(self) -> int:
        return self.server.counts.calls

    def client(self) -> FakeClient:
        client = FakeClient(self.server)
        self.settle()
        return client

    def turn(self) -> float:
        """Do what is due in a turn of the loop; return the time that it took."""
        began_s = self.now_s
        for _ in range(len(self.soon)):
            self.soon.popleft()()
        return self.now_s - began_s

    def settle(self) -> None:
        while self.soon:
            self.turn()


def send_calls(client: FakeClient, count: int) -> None:
    """All in one piece."""
    client.send(
        *(
            frame
            for stream in range(1, 2 * count, 2)
            for frame in (client.headers(stream), data(message_frame(ASKED), stream, is_last=True))
        )
    )


def test_all_connections_together_take_the_time_of_one_turn() -> None:
    async def test() -> None:
        busy = Busy()
        clients = [busy.client() for _ in range(50)]
        for client in clients:
            send_calls(client, 200)
        begun = busy.calls
        assert 0 < begun < 1000, "what comes while nobody waits is taken in at once, until its time is over"
        most_s = max(busy.turn() for _ in range(20))
        # A visit that has begun is not cut off: one to what has just come, and one to what was left.
        assert most_s < LONGEST_TURN_S + 4 * VISIT_S
        assert begun < busy.calls < 50 * 200
        busy.settle()
        await asyncio.sleep(0)
        assert busy.calls == 50 * 200
        assert busy.server.port.budget.held_bytes == 0
        for client in clients:
            client.leave()

    run(test)


def test_a_connection_with_one_call_need_not_wait_for_those_with_many() -> None:
    async def test() -> None:
        busy = Busy()
        greedy = [busy.client() for _ in range(5)]
        modest = busy.client()
        for client in greedy:
            send_calls(client, 250)
        send_calls(modest, 1)
        assert modest.connection.is_busy
        for _ in range(10):
            if modest.connection.is_busy:
                busy.turn()
                await asyncio.sleep(0)
        assert not modest.connection.is_busy
        assert busy.calls < 5 * 250
        busy.settle()
        for client in [*greedy, modest]:
            client.leave()

    run(test)


def test_a_calls_time_begins_with_the_turn_that_it_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[float, float | None]] = []
    init = Call.__init__

    def noting(call: Call, *rest: object) -> None:
        init(call, *rest)  # type: ignore[arg-type]
        begun.append((call.arrived_s, call.deadline_s))

    monkeypatch.setattr(Call, "__init__", noting)

    async def test() -> None:
        busy = Busy()
        client = busy.client()
        busy.now_s += 1.0
        busy.server.port.turn.is_open(busy.now_s)
        read_s = busy.now_s
        busy.now_s += LONGEST_TURN_S
        client.send(client.headers(1, headers_of(grpc_timeout="3S")), data(message_frame(ASKED), 1, is_last=True))
        assert busy.calls == 0 and client.connection.is_busy
        busy.now_s += 0.2
        busy.settle()
        ((arrived_s, deadline_s),) = begun
        assert arrived_s == pytest.approx(read_s, abs=10 * LOOK_S)
        assert deadline_s == pytest.approx(read_s + 3, abs=10 * LOOK_S)
        client.leave()

    run(test)


def test_pieces_take_about_as_long_as_a_visit_whatever_their_bytes_cost() -> None:
    # 150 ns a byte are small calls, 1 us messages that are refused, and 1 ns a large message.
    for cost_s, least_bytes, most_bytes in ((150e-9, 3000, 3400), (1e-6, 490, 510), (1e-9, 16384, 16384)):
        piece_bytes = bounds.FIRST_PIECE_BYTES
        for _ in range(10):
            piece_bytes = bounds.next_piece_bytes(piece_bytes, piece_bytes, piece_bytes * cost_s)
        assert least_bytes <= piece_bytes <= most_bytes, cost_s
    assert bounds.next_piece_bytes(2048, 2048, 0.0) == 4096
    assert bounds.next_piece_bytes(2048, 2048, 10.0) == bounds.LEAST_PIECE_BYTES
    # However little a short read cost, the next piece is twice as large at most.
    assert bounds.next_piece_bytes(2048, 17, 1e-6) == 4096


def test_input_that_costs_much_is_handled_in_pieces_that_take_a_visit() -> None:
    async def test() -> None:
        busy = Busy()
        client = busy.client()
        send_calls(client, 200)
        times_s = []
        while busy.soon and len(times_s) < 20:
            before = busy.calls
            took_s = busy.turn()
            if busy.calls > before:
                times_s.append(took_s)
        assert len(times_s) > 3
        assert max(times_s[1:]) <= 3 * VISIT_S, "a visit, and the answers to the calls before"

    run(test)


def test_a_streams_further_messages_wait_for_the_loops_next_turns() -> None:
    # Each is refused at once, so nothing but the turn's budget holds the next one up.
    async def test() -> None:
        busy = Busy(Later())
        greedy = [busy.client() for _ in range(3)]
        invalid = message_frame(b"\xff\xff")
        for client in greedy:
            for stream in (1, 3, 5):
                client.send(client.headers(stream, headers_of(STREAM_INFER)))
                client.send(data(invalid * 180, stream))
        refused = 9 * 180
        assert busy.server.port.refused["malformed_request"] < refused
        turns_s = []
        while busy.server.port.refused["malformed_request"] < refused and len(turns_s) < 10_000:
            turns_s.append(busy.turn())
            await asyncio.sleep(0)  # they read their answers
        assert busy.server.port.refused["malformed_request"] == refused
        assert max(turns_s) <= LONGEST_TURN_S + 2 * VISIT_S
        for client in greedy:
            client.leave()
        assert busy.server.port.budget.held_bytes == 0

    run(test)
