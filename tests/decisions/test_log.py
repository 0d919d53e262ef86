"""A worker's end of the log: blocks, what is dropped, what is sampled."""

import asyncio
import os
import threading
from pathlib import Path

from log_files import SETTING, decision, judgement

from clipper.decisions import log as log_module
from clipper.decisions.application import QUERY_IDS, ApplicationDecisions
from clipper.decisions.log import DecisionLog
from clipper.decisions.reading import LogReader
from clipper.decisions.records import MAX_BLOCK_BYTES, Setting
from clipper.decisions.segments import LEAST_LOG_BYTES
from event_loops import until


def ids_in(folder: Path) -> list[int]:
    return [each.query_id for piece in LogReader(folder).decisions() for _, each in piece]


def test_records_come_to_disk_by_themselves_and_at_the_end(tmp_path: Path) -> None:
    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        log.add(decision(1, setting=log.enter(SETTING)))
        await until(lambda: log.statistics().written == 1)
        assert ids_in(tmp_path) == [1]
        log.add(decision(2, setting=log.enter(SETTING)))
        await log.close()
        assert ids_in(tmp_path) == [1, 2]
        assert log.statistics().written == 2 and log.statistics().waiting_bytes < 50

    asyncio.run(whole())


def test_a_setting_is_in_each_block_that_needs_it(tmp_path: Path) -> None:
    """However settings and decisions fall on the blocks' ends."""

    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        wide = Setting("wide", "exp3", tuple(f"model-{n:060d}" for n in range(64)), ("1",) * 64, b"x" * 8000)
        settings, places = {0: SETTING, 1: wide}, {0: (-1, 0), 1: (-1, 0)}
        for number in range(3000):
            which = number % 2
            block, place = places[which]
            if block != log.block:
                place = log.enter(settings[which])
                places[which] = log.block, place
            log.add(decision(number, setting=place, outputs=(b"x" * (number % 300),)))
        await log.close()

    asyncio.run(whole())
    found = [(s, d) for piece in LogReader(tmp_path).decisions() for s, d in piece]
    assert [d.query_id for _, d in found] == list(range(3000))
    assert all(s.application == ("app", "wide")[d.query_id % 2] for s, d in found)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < MAX_BLOCK_BYTES


def test_a_disk_that_hangs_costs_records_and_nothing_else(tmp_path: Path) -> None:
    """A pipe that nobody reads in place of a file: the first write waits for ever."""
    hangs = threading.Event()

    async def whole() -> None:
        log = DecisionLog(tmp_path / "log", "w", LEAST_LOG_BYTES)
        (tmp_path / "log").mkdir()
        reading, writing = os.pipe()
        log._segments._file, log._segments._size_bytes = writing, 0
        block = -1
        for number in range(12_000):
            if block != log.block:
                block = log.block
                log.enter(SETTING)
            log.add(decision(number, outputs=(b"x" * 4000,)))
        assert log.statistics().dropped["queue_full"] > 3000
        assert log.statistics().waiting_bytes < log_module.MAX_WAITING_BYTES + 2 * log_module.BLOCK_BYTES + 1_000_000
        log.flush()
        # It reads again: what waited is written.
        reader = threading.Thread(target=_drain, args=(reading, hangs), daemon=True)
        reader.start()
        await until(lambda: log.statistics().waiting_bytes < 1000)
        dropped = log.statistics().dropped["queue_full"]
        log.add(decision(1, setting=log.enter(SETTING)))
        await log.close()
        assert log.statistics().dropped == {"queue_full": dropped, "write_failed": 0}
        assert log.statistics().written == 12_001 - dropped
        hangs.set()
        os.close(reading)

    asyncio.run(whole())


def _drain(pipe: int, stop: threading.Event) -> None:
    while not stop.is_set() and os.read(pipe, 1 << 20):
        pass


def test_a_share_is_spread_evenly_over_ids_whatever_their_steps(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
    for rate in (0.01, 0.3, 0.5, 1.0):
        taker = ApplicationDecisions(log, SETTING, rate)
        for first, step in ((0, 1), (7 << 33, 1), (3, 2), (5, 7), (1, 1 << 20)):
            taken = sum(taker.takes(first + step * number) for number in range(20_000))
            assert abs(taken - 20_000 * rate) <= 200, (rate, first, step)


def test_feedback_on_what_cannot_be_a_query_is_not_taken(tmp_path: Path) -> None:
    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        taker = ApplicationDecisions(log, SETTING, 1.0)
        for query_id in (-1, QUERY_IDS, 10**40):
            assert not taker.judge_late(query_id, b"1", None, "zero_one", {})
        for reward in (-0.1, 1.5, float("nan"), float("inf")):
            assert not taker.judge_late(1, None, reward, "zero_one", {})
        assert taker.judge_late(QUERY_IDS - 1, b"1", None, "absolute", {"range": 2})
        await log.close()
        (piece,) = LogReader(tmp_path).judgements()
        assert [each.query_id for each in piece] == [QUERY_IDS - 1]
        assert judgement(1) not in piece

    asyncio.run(whole())
