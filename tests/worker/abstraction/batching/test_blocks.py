"""Blocks: every row is sent until it is answered, in pieces that make no query wait for long."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.blocks import (
    BUSY_SHARE,
    MAX_BLOCKS,
    MAX_BYTES,
    MOST_PIECE_S,
    QUIET_PIECES,
    Block,
    Blocks,
    Piece,
    PieceSize,
)
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.example_counts import share_of
from tests.worker.abstraction.batching.scheduling import Speed, finish_all, is_empty, make_scheduler, push
from tests.works import make_work

SPEED = Speed(0.0002, 0.00001, 1024)


def pieces(scheduler: Scheduler, now_s: float) -> list[Piece]:
    return [batch.piece for _, batch in scheduler.decide(now_s).batches if batch.piece is not None]


def answer(scheduler: Scheduler, now_s: float, speed: Speed = SPEED) -> float:
    """Let the first batch of each replica come back when it is due. Return the time."""
    for replica in scheduler.replicas.values():
        for batch in list(replica.in_flight.values())[:1]:
            rows = batch.piece.rows if batch.piece is not None else len(batch.works)
            now_s += speed.service_s(rows)
            scheduler.finished(replica, batch.id, now_s)
    return now_s


def test_all_rows_are_sent_once_and_in_growing_pieces() -> None:
    scheduler, now_s, sent = make_scheduler(SPEED), 0.0, []
    assert scheduler.blocks.push(Block(5000, 40_000))
    while scheduler.has_work or any(replica.in_flight for replica in scheduler.replicas.values()):
        sent += pieces(scheduler, now_s)
        now_s = answer(scheduler, now_s)
    assert [row for piece in sent for row in range(piece.start, piece.stop)] == list(range(5000))
    assert sent[0].rows == 8
    assert max(piece.rows for piece in sent) == 1024
    assert is_empty(scheduler.decide(now_s))


def test_pieces_of_a_model_whose_batches_are_dear_have_many_rows() -> None:
    """Even a row takes longer than a piece may, and many take no longer: rows were sent one by one."""
    speed = Speed(0.02, 0.000001, 1024)
    scheduler, now_s, sent = make_scheduler(speed, slo_s=0.06), 0.0, []
    scheduler.blocks.push(Block(100_000, 800_000))
    while scheduler.has_work:
        sent += pieces(scheduler, now_s)
        now_s = answer(scheduler, now_s, speed)
    assert min(piece.rows for piece in sent) == 1
    assert 900 < max(piece.rows for piece in sent) <= 1024
    assert len(sent) < 300


def test_a_first_piece_of_one_row_is_learned_from() -> None:
    """Nothing was: all pieces had one row, for as long as the job took."""
    size = PieceSize()
    size.budget_s = 0.05
    for _ in range(20):
        size.learn(1 if size.took_s == 0 else int(size.rows), 0.001)
    assert size.rows > 500


def test_two_pieces_are_in_flight_and_queries_go_first() -> None:
    scheduler = make_scheduler(SPEED)
    scheduler.blocks.push(Block(5000, 40_000))
    assert len(pieces(scheduler, 0.0)) == QUIET_PIECES
    assert pieces(scheduler, 0.0) == []
    finish_all(scheduler, 0.001)
    works = push(scheduler, 3, 0.001)
    ((_, batch),) = scheduler.decide(0.001).batches
    assert batch.works == works and batch.piece is None
    assert pieces(scheduler, 0.001) == []
    finish_all(scheduler, 0.002)
    assert pieces(scheduler, 0.002)


def test_pieces_are_short_while_queries_come_and_leave_a_replica_free() -> None:
    slo_s = 0.1
    scheduler = make_scheduler(SPEED, SPEED, slo_s=slo_s)
    scheduler.blocks.push(Block(1_000_000, 8_000_000))
    longest = 0
    for step in range(1, 2000):
        now_s = step / 5000
        for replica in scheduler.replicas.values():
            for batch in list(replica.in_flight.values()):
                rows = batch.piece.rows if batch.piece is not None else len(batch.works)
                if batch.sent_s + SPEED.service_s(rows) <= now_s:
                    scheduler.finished(replica, batch.id, batch.sent_s + SPEED.service_s(rows))
        if step % 5 == 0:
            push(scheduler, 3, now_s, slo_s)
        given = pieces(scheduler, now_s)
        if step > 1000:  # by now it is known how many come
            in_flight = [batch for one in scheduler.replicas.values() for batch in one.in_flight.values()]
            assert sum(batch.piece is not None for batch in in_flight) <= 1
            longest = max([longest, *(piece.rows for piece in given)])
    assert 0 < SPEED.service_s(longest) <= BUSY_SHARE * slo_s + SPEED.service_s(1)


def beside_queries(speed: Speed, has_block: bool, per_s: float = 500, slo_s: float = 0.1) -> tuple[float, float]:
    """Simulate a replica for four seconds. Return the p99 of queries in seconds, and the rows of blocks a second."""
    chance, scheduler = Random(1), make_scheduler(speed, slo_s=slo_s)
    if has_block:
        scheduler.blocks.push(Block(10**9, 10**9))
    (replica,) = scheduler.replicas.values()
    in_flight: list[tuple[float, int, list[float], int]] = []
    latencies: list[float] = []
    now_s = free_s = 0.0
    wake_s, rows, arrives_s = float("inf"), 0, chance.expovariate(per_s)
    while now_s < 4:
        now_s = min([arrives_s, wake_s, *(batch[0] for batch in in_flight[:1])])
        if in_flight and in_flight[0][0] <= now_s:
            _, batch_id, arrivals, piece = in_flight.pop(0)
            scheduler.finished(replica, batch_id, now_s)
            rows += piece
            latencies += [now_s - each for each in arrivals if now_s > 1]  # by then the rate is known
        elif arrives_s <= now_s:
            scheduler.push(make_work(b"%d" % len(latencies), now_s, slo_s), now_s)
            arrives_s = now_s + chance.expovariate(per_s)
        decision = scheduler.decide(now_s)
        assert not decision.late and not decision.shed
        wake_s = float("inf") if decision.wake_s is None else max(decision.wake_s, now_s + 1e-5)
        for _, batch in decision.batches:
            piece = batch.piece.rows if batch.piece is not None else 0
            free_s = max(now_s, free_s) + speed.service_s(piece or len(batch.works)) * chance.uniform(0.9, 1.2)
            in_flight.append((free_s, batch.id, [work.due_s - slo_s for work in batch.works], piece))
    return sorted(latencies)[int(0.99 * len(latencies))], rows / 4


@pytest.mark.parametrize(
    ("speed", "most", "least_per_s"),
    [
        pytest.param(Speed(0.0003, 0.000001, 4096), 1.25, 100_000, id="cheap rows"),
        pytest.param(Speed(0.001, 0.00001, 4096), 1.3, 10_000, id="as cheap beside a batch"),
        pytest.param(Speed(0.0003, 0.0004, 4096), 1.1, 500, id="dear rows"),
        pytest.param(Speed(0.004, 0.000015, 4096), 1.1, 500, id="a dear batch"),
    ],
)
def test_queries_wait_hardly_longer_beside_a_block_which_goes_on(speed: Speed, most: float, least_per_s: float) -> None:
    """Pieces of 5 % of the SLO made the p99 of the first 7 times as long."""
    alone_s, _ = beside_queries(speed, has_block=False)
    beside_s, per_s = beside_queries(speed, has_block=True)
    assert beside_s < most * alone_s and per_s > least_per_s


@given(fixed_s=st.floats(1e-5, 0.1), row_s=st.floats(1e-7, 0.01), budget_s=st.floats(1e-4, 0.05))
def test_pieces_come_to_take_their_budget(fixed_s: float, row_s: float, budget_s: float) -> None:
    size = PieceSize()
    size.budget_s = budget_s
    for _ in range(200):
        rows = int(size.rows)
        size.learn(rows, fixed_s + row_s * rows)
    assert size.rows == 1 or fixed_s + row_s * (int(size.rows) - 1) <= budget_s * 1.1
    assert fixed_s + row_s * (size.rows + 2) >= budget_s * 0.9
    rows, before = int(size.rows), size.rows
    if rows > 1:
        size.learn(rows - 1, budget_s / 2)  # the rest of a block, which says little of a whole piece
        assert size.rows == before


def test_no_piece_is_longer_than_a_bound_whatever_the_slo() -> None:
    slow = Speed(0.001, 0.001, 1024)
    scheduler, now_s, longest = make_scheduler(slow, slo_s=60.0), 0.0, 0
    scheduler.blocks.push(Block(3000, 3000))
    while scheduler.has_work or any(replica.in_flight for replica in scheduler.replicas.values()):
        longest = max([longest, *(piece.rows for piece in pieces(scheduler, now_s))])
        now_s = answer(scheduler, now_s, slow)
    assert slow.service_s(longest) <= MOST_PIECE_S * 1.01


def test_there_is_room_for_so_many_blocks_and_bytes() -> None:
    blocks = Blocks()
    assert all(blocks.push(Block(1, 1)) for _ in range(MAX_BLOCKS))
    assert not blocks.push(Block(1, 1))
    blocks = Blocks()
    first = Block(1, 2 * MAX_BYTES)  # one is always taken
    assert blocks.push(first) and not blocks.push(Block(1, 1))
    blocks.end(first)
    assert blocks.push(Block(1, 1))


def test_a_block_that_nobody_waits_for_is_not_sent() -> None:
    scheduler = make_scheduler(SPEED)
    block = Block(5000, 40_000)
    scheduler.blocks.push(block)
    scheduler.decide(0.0)
    scheduler.blocks.end(block)
    finish_all(scheduler, 1.0)
    assert not scheduler.has_work and pieces(scheduler, 1.0) == []


@settings(max_examples=share_of(100))
@given(rows=st.integers(1, 3000), bad=st.sets(st.integers(0, 2999), max_size=3))
def test_pieces_that_fail_are_tried_in_parts(rows: int, bad: set[int]) -> None:
    scheduler, now_s = make_scheduler(SPEED), 0.0
    blocks, failed, answered, tries = scheduler.blocks, set(), [], 0
    blocks.push(Block(rows, rows))
    while scheduler.has_work or any(replica.in_flight for replica in scheduler.replicas.values()):
        scheduler.decide(now_s)
        for replica in scheduler.replicas.values():
            for batch in list(replica.in_flight.values()):
                now_s += SPEED.service_s(batch.piece.rows)
                scheduler.finished(replica, batch.id, now_s)
                tries += 1
                if not bad.isdisjoint(range(batch.piece.start, batch.piece.stop)):
                    if not blocks.try_again(batch.piece):
                        failed.add(batch.piece.start)
                else:
                    answered += range(batch.piece.start, batch.piece.stop)
    assert failed == {row for row in bad if row < rows}
    assert sorted(answered) == [row for row in range(rows) if row not in bad]
    # Each of them costs a few tries: one for each part, down to a row.
    assert tries <= 40 + 40 * len(bad)


def test_a_lost_replica_is_known_no_more() -> None:
    scheduler = make_scheduler(SPEED)
    block = Block(100, 100)
    scheduler.blocks.push(block)
    lost = pieces(scheduler, 0.0)
    scheduler.lose_replica("0")
    assert all(scheduler.blocks.try_again(piece) for piece in lost)
    scheduler.add_replica("1", 1024)
    found = {row for piece in pieces(scheduler, 1.0) for row in range(piece.start, piece.stop)}
    assert found and found <= set(range(100))


@pytest.mark.parametrize("fixed_s", [0.0003, 0.5])  # pieces of many rows, and of one each
@pytest.mark.parametrize("deadly", [{13}, {13, 14}, {0, 50, 99}])
def test_only_rows_that_end_their_replica_are_blamed(fixed_s: float, deadly: set[int]) -> None:
    """Pieces behind them are lost, too."""
    scheduler = make_scheduler(Speed(fixed_s, 0.000001, 1024))
    scheduler.blocks.push(Block(100, 100))
    blamed, answered, now_s = set(), [], 0.0
    while scheduler.decide(now_s).batches or any(replica.in_flight for replica in scheduler.replicas.values()):
        (replica,) = scheduler.replicas.values()
        batches = list(replica.in_flight.values())
        rows, now_s = range(batches[0].piece.start, batches[0].piece.stop), now_s + fixed_s
        if deadly.isdisjoint(rows):
            scheduler.finished(replica, batches[0].id, now_s)
            answered += rows
            continue
        scheduler.lose_replica(replica.id)
        for batch in batches:
            if not scheduler.blocks.try_again(batch.piece, has_begun=batch is batches[0]):
                blamed.add(batch.piece.start)
        scheduler.add_replica(f"{replica.id} again", 1024)
    assert blamed == deadly and sorted(answered) == sorted(set(range(100)) - deadly)
