"""Long answers: made and written in pieces, to the same bytes, and bounded while clients do not read them."""

import asyncio

import numpy as np
import pytest

from clipper.base.malloc import LARGE_PIECE_BYTES
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.output import Output, TypedOutput, is_long
from clipper.values.types import DType
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.exchange import Exchange, Gather, Part
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.port import Port
from clipper.worker.selection.query import NO_SOURCE
from tests.serving import post
from tests.worker.frontend.fake_transport import Later, Peer, later, run

ROWS = 300


def array(rows: int = ROWS) -> TypedOutput:
    """An output whose JSON takes several pieces."""
    form = OutputForm(DType.FLOAT32, (rows, 100), DType.FLOAT64)
    data = np.random.default_rng(7).random((rows, 100), np.float32).tobytes()
    return TypedOutput(form, data, len(data), True)


TEXT = b'"%b"' % (b"x" * (limits.WRITE_BYTES + 1000))


def whole(output: Output, *, close: bool = False) -> bytes:
    body = responses.prediction_json(7, bytes(output), 0.5, NO_SOURCE)
    return responses.answer(200, body, close=close)


async def turns_until_written(peer: Peer, size: int) -> int:
    """Take turns of the loop until so much is written; return how many it took."""
    for turn in range(10_000):
        if len(peer.transport.written) >= size:
            for _ in range(5):  # after which it is known that all is written
                await asyncio.sleep(0)
            return turn
        await asyncio.sleep(0)
    raise AssertionError(f"{len(peer.transport.written)} bytes of {size} were written")


def asked(port: Port, endpoint: Later, *requests: bytes) -> tuple[Peer, list[Exchange]]:
    peer = Peer(port)
    peer.send(*(requests or (post("/later/predict", b"x"),)))
    return peer, endpoint.exchanges


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.base.turn_budget.VISIT_S", 0.0)


@pytest.mark.parametrize("output", [array(), TEXT])
def test_a_long_output_is_answered_in_many_turns_by_the_same_bytes(output: Output) -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint)
        assert is_long(output)
        exchanges[0].on_prediction(7, output, 0.5, NO_SOURCE)
        expected = whole(output)
        assert len(peer.transport.written) < len(expected)
        turns = await turns_until_written(peer, len(expected))
        assert turns >= 3 and bytes(peer.transport.written) == expected
        assert port.budget.held_bytes == 0 and not peer.connection.is_busy

    run(test, endpoints)


def test_the_last_answer_of_a_connection_may_be_long() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint, post("/later/predict", b"x", Connection="close"))
        exchanges[0].on_unsure(7, b"0", array(), 0.5)
        text = responses.unsure_json(7, b"0", bytes(array()), 0.5)
        expected = responses.answer(200, text, close=True)
        await turns_until_written(peer, len(expected))
        await asyncio.sleep(0)
        assert bytes(peer.transport.written) == expected and peer.transport.has_ended

    run(test, endpoints)


def test_answers_keep_their_order_around_a_long_one() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint, *(post("/later/predict", b"%d" % number) for number in range(3)))
        exchanges[2].answer(200, b"2")
        exchanges[1].on_prediction(7, array(), 0.5, NO_SOURCE)
        exchanges[0].answer(200, b"0")
        expected = responses.answer(200, b"0") + whole(array()) + responses.answer(200, b"2")
        await turns_until_written(peer, len(expected))
        assert bytes(peer.transport.written) == expected

    run(test, endpoints)


def test_long_rows_of_a_batch_are_made_when_all_have_come() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, (exchange,) = asked(port, endpoint)
        gather = Gather(exchange, 3, port.budget)
        parts = [Part(gather, index) for index in range(3)]
        parts[1].on_prediction(7, array(), 0.5, NO_SOURCE)
        parts[0].on_prediction(7, b"1", 0.5, NO_SOURCE)
        assert port.budget.held_bytes > len(array().data)
        parts[2].on_prediction(7, TEXT, 0.5, NO_SOURCE)
        texts = [responses.prediction_json(7, bytes(each), 0.5, NO_SOURCE) for each in (b"1", array(), TEXT)]
        expected = responses.answer(200, responses.batch_json(texts))
        await turns_until_written(peer, len(expected))
        assert bytes(peer.transport.written) == expected and port.budget.held_bytes == 0

    run(test, endpoints)


def test_a_request_that_has_to_end_for_its_last_part_is_not_answered() -> None:
    answered: list[object] = []
    budget = Budget(5000)
    gather = Gather(Exchange(None), 1, budget, lambda parts, _: answered.append(parts))

    def make_room() -> bool:
        gather.cancel()
        return True

    budget.make_room = make_room
    gather.end_part(0, b"1", 6000, 6000)
    assert gather.has_ended and not answered and budget.held_bytes == 0


def test_a_client_that_does_not_read_is_written_to_no_more() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint)
        exchanges[0].on_prediction(7, array(), 0.5, NO_SOURCE)
        expected = whole(array())
        await turns_until_written(peer, 1)
        peer.connection.pause_writing()
        written = len(peer.transport.written)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(peer.transport.written) == written
        assert port.budget.held_bytes == len(expected) - written
        peer.connection.resume_writing()
        await turns_until_written(peer, len(expected))
        assert bytes(peer.transport.written) == expected and port.budget.held_bytes == 0

    run(test, endpoints)


def test_a_client_that_leaves_ends_the_work_on_its_answer() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        for turns in (0, 1, 5):
            peer, exchanges = asked(port, endpoint)
            exchanges[-1].on_prediction(7, array(), 0.5, NO_SOURCE)
            for _ in range(turns):
                await asyncio.sleep(0)
            peer.transport.close()
            peer.leave()
            for _ in range(100):
                await asyncio.sleep(0)
            assert port.budget.held_bytes == 0

    run(test, endpoints)


def test_short_parts_are_joined_and_long_ones_are_not_copied() -> None:
    joined, short, long = responses.Joined(), b"x" * 1000, memoryview(bytes(limits.WRITE_BYTES + 1))
    parts = [*[short] * 3000, long, short, long, long, short]
    for part in parts:
        joined.add(part)
    found = joined.all()
    assert b"".join(found) == b"".join(parts)
    assert sum(part is long for part in found) == 3 and len(found) == 3 + 3 + 2
    assert all(len(part) < LARGE_PIECE_BYTES + 1000 for part in found)


@pytest.mark.parametrize("is_noticed", [False, True])
def test_what_a_client_leaves_unread_is_dropped_in_steps(is_noticed: bool) -> None:
    """Fifteen clients that left with 16 MB each held the loop for 30 ms."""
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint)
        peer.connection.pause_writing()
        exchanges[0].on_prediction(7, array(2000), 0.5, NO_SOURCE)
        for _ in range(1000):
            if exchanges[0].rest is not None:
                break
            await asyncio.sleep(0)
        rest = exchanges[0].rest
        assert rest is not None
        pieces = len(rest)
        assert pieces > 10
        if is_noticed:  # the connection learns it while it writes
            peer.transport.close()
            peer.connection.resume_writing()
        peer.leave()
        assert port.budget.held_bytes == 0 and len(rest) >= pieces - 1
        for _ in range(2 * pieces):
            await asyncio.sleep(0)
        assert not rest

    run(test, endpoints)


def test_clients_that_read_nothing_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred clients ask for long outputs. Some are told that there is no room, and none takes memory over it."""
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        port.budget.bound_bytes = 8 * len(whole(array()))
        peers = []
        for _ in range(100):
            peer, exchanges = asked(port, endpoint)
            peers.append(peer)
            peer.connection.pause_writing()
            exchanges[-1].on_prediction(7, array(), 0.5, NO_SOURCE)
            for _ in range(40):
                await asyncio.sleep(0)
            assert port.budget.held_bytes <= port.budget.bound_bytes
        for peer in peers:
            peer.connection.resume_writing()
        while port.budget.held_bytes:
            await asyncio.sleep(0)
        statuses = [peer.responses[0].status for peer in peers if not peer.transport.is_aborted]
        assert statuses.count(200) >= 4 and statuses.count(503) >= 50 and len(statuses) == 100
        assert port.budget.held_bytes == 0

    run(test, endpoints)


def test_a_client_that_reads_a_byte_a_second_is_cut_off() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint)
        exchanges[0].on_prediction(7, array(), 0.5, NO_SOURCE)
        await turns_until_written(peer, 1)
        peer.transport.unsent_bytes = 200_000
        peer.connection.pause_writing()
        for sweep in range(limits.REQUEST_TIMEOUT_SWEEPS + 1):
            assert not peer.transport.is_aborted, sweep
            port.sweeps += 1
            peer.transport.unsent_bytes -= 1
            peer.connection.sweep(port.sweeps)
        assert peer.transport.is_aborted

    run(test, endpoints)


def test_a_client_that_reads_slowly_but_steadily_gets_all() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer, exchanges = asked(port, endpoint)
        exchanges[0].on_prediction(7, array(), 0.5, NO_SOURCE)
        await turns_until_written(peer, 1)
        peer.transport.unsent_bytes = 10_000_000
        peer.connection.pause_writing()
        for _ in range(3 * limits.REQUEST_TIMEOUT_SWEEPS):
            port.sweeps += 1
            peer.transport.unsent_bytes -= limits.LEAST_TAKEN_BYTES // 10
            peer.connection.sweep(port.sweeps)
        assert not peer.transport.is_aborted

    run(test, endpoints)
