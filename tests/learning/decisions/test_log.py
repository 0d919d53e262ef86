"""A worker's end of the log: blocks, what is dropped, what is sampled."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from clipper.learning.decisions import log as log_module
from clipper.learning.decisions.application import QUERY_IDS, ApplicationDecisions
from clipper.learning.decisions.log import DecisionLog
from clipper.learning.decisions.reading import LogReader
from clipper.learning.decisions.records import MAX_BLOCK_BYTES, MAX_OUTPUTS_BYTES, Decision, Setting
from clipper.learning.decisions.redaction import Redaction
from clipper.learning.decisions.segments import MAX_WRITERS, RESERVED_PART
from clipper.learning.policies.policy import Choice, Step
from clipper.settings.application import Selection
from clipper.settings.server import LEAST_LOG_BYTES
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.outputs.output import Output, OutputNames, make_record
from clipper.values.records import RecordType, parse_type
from tests.learning.decisions.log_files import SETTING, decision, judgement
from tests.waiting import until_async

NOTHING = Redaction(None, parse_type("float64[2]"))


def ids_in(folder: Path) -> list[int]:
    return [each.query_id for piece in LogReader(folder).decisions() for _, each in piece]


def test_records_come_to_disk_by_themselves_and_at_the_end(tmp_path: Path) -> None:
    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        log.add([decision(1, setting=log.enter(SETTING))])
        await until_async(lambda: log.statistics().written == 1)
        assert ids_in(tmp_path) == [1]
        log.add([decision(2, setting=log.enter(SETTING))])
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
            log.add([decision(number, setting=place, outputs=(b"x" * (number % 300),))])
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
            log.add([decision(number, outputs=(b"x" * 4000,))])
        assert log.statistics().dropped["queue_full"] > 3000
        assert log.statistics().waiting_bytes < log_module.MAX_WAITING_BYTES + 2 * log_module.BLOCK_BYTES + 1_000_000
        log.flush()
        # It reads again: what waited is written.
        reader = threading.Thread(target=_drain, args=(reading, hangs), daemon=True)
        reader.start()
        await until_async(lambda: log.statistics().waiting_bytes < 1000)
        dropped = log.statistics().dropped["queue_full"]
        log.add([decision(1, setting=log.enter(SETTING))])
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
        taker = ApplicationDecisions(log, SETTING, rate, NOTHING)
        for first, step in ((0, 1), (7 << 33, 1), (3, 2), (5, 7), (1, 1 << 20)):
            taken = sum(taker.takes(first + step * number) for number in range(20_000))
            assert abs(taken - 20_000 * rate) <= 200, (rate, first, step)


def test_feedback_on_what_cannot_be_a_query_is_not_taken(tmp_path: Path) -> None:
    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        taker = ApplicationDecisions(log, SETTING, 1.0, NOTHING)
        for query_id in (-1, QUERY_IDS, 10**40):
            assert not taker.judge_late(query_id, b"1", None, Selection("single"))
        for reward in (-0.1, 1.5, float("nan"), float("inf")):
            assert not taker.judge_late(1, None, reward, Selection("single"))
        absolute = Selection("single", loss="absolute", loss_parameters={"range": 2})
        assert taker.judge_late(QUERY_IDS - 1, b"1", None, absolute)
        await log.close()
        (piece,) = LogReader(tmp_path).judgements()
        assert [each.query_id for each in piece] == [QUERY_IDS - 1]
        assert judgement(1) not in piece

    asyncio.run(whole())


class Answered:
    """A query as the loop leaves it."""

    def __init__(self, query_id: int, output: bytes | None, **fields: object) -> None:
        self.id = query_id
        self.context = None
        self.features: bytes | None = None
        self.arrival_s = time.monotonic()
        self.choice: Choice | None = Choice(("a",), (0.5,))
        self.pinned = None
        self.first_output = output
        self.output = output
        self.confidence = 1.0
        self.raw_confidence: float | None = None
        self.reason: str | None = None
        self.candidates: tuple[str, ...] | None = None
        self.path: Any = None
        self.outputs: dict[str, bytes] = {} if output is None else {"a": output}
        for name, value in fields.items():
            setattr(self, name, value)

    def texts(self, text_of: Callable[[Output], bytes]) -> dict[str, bytes]:
        return {model: text_of(output) for model, output in self.outputs.items()}


def written(tmp_path: Path, *queries: Answered, then: Callable[[], None] = lambda: None) -> dict[int, Decision]:
    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        taker = ApplicationDecisions(log, SETTING, 1.0, NOTHING)
        for query in queries:
            taker.add(query, None, 0.25)
        then()
        await log.close()

    asyncio.run(whole())
    return {each.query_id: each for piece in LogReader(tmp_path).decisions() for _, each in piece}


def test_what_a_query_is_written_as(tmp_path: Path) -> None:
    began_s = time.time()
    both = Choice(("a", "b"), (0.25, 0.75))
    found = written(
        tmp_path,
        Answered(1, b"1"),
        Answered(2, None, reason="timeout"),
        Answered(3, None, choice=None, reason="policy_error"),
        Answered(4, b"7", choice=both, outputs={"b": b"7"}, first_output=b"7", confidence=0.75),
        # Less sure than asked for: the default was answered, though there was an output.
        Answered(
            5,
            None,
            outputs={"a": b"2"},
            first_output=b"2",
            confidence=0.2,
            raw_confidence=0.9,
            reason="low_confidence",
        ),
        # A policy that makes another answer of the one output.
        Answered(6, b"8", outputs={"a": b"2"}, first_output=b"2"),
        Answered(7, b"x" * 9000),
        Answered(8, b"x" * 4096),
        # One that asked a second model, after it saw what the first had answered.
        Answered(
            10,
            b"7",
            choice=Choice(("a", "b"), (0.0, 1.0), steps=(Step(1, 0.5, 1.0),)),
            outputs={"a": b"6", "b": b"7"},
            first_output=b"6",
        ),
        Answered(9, b"x" * 9000, choice=both, outputs={"a": b"x" * 9000, "b": b"3"}, first_output=b"3"),
    )
    assert (found[1].outputs, found[1].answer, found[1].shares) == ((b"1",), None, (0.5,))
    assert (found[2].outputs, found[2].answer, found[2].reason) == ((None,), None, "timeout")
    assert (found[3].models, found[3].outputs, found[3].reason) == ((), (), "policy_error")
    assert (found[4].outputs, found[4].answer, found[4].confidence) == ((None, b"7"), b"7", 0.75)
    assert (found[5].outputs, found[5].answer, found[5].confidence) == ((b"2",), None, 0.2)
    assert (found[4].raw_confidence, found[5].raw_confidence) == (None, 0.9)
    assert (found[6].outputs, found[6].answer) == ((b"2",), b"8")
    assert (found[7].outputs, found[7].answer, found[7].is_cut) == ((b"x" * 4096,), None, True)
    assert (found[8].outputs, found[8].is_cut) == ((b"x" * 4096,), False)
    part = b"x" * (MAX_OUTPUTS_BYTES // 3)
    assert (found[9].outputs, found[9].answer, found[9].is_cut) == ((part, b"3"), part, True)
    assert (found[10].steps, found[10].answer, found[9].steps) == (((1, 0.5, 1.0),), b"7", ())
    for each in found.values():
        assert each.latency_s == 0.25
        assert began_s - 1 < each.time_s < time.time() + 1


def test_what_comes_after_the_answer_does_not_change_what_was_written(tmp_path: Path) -> None:
    late = Answered(1, None, reason="timeout")
    joint = Answered(2, b"1", choice=Choice(("a", "b"), (0.5, 0.5)))

    def come() -> None:
        late.first_output = b"5"
        late.outputs["a"] = joint.outputs["b"] = b"5"

    found = written(tmp_path, late, joint, then=come)
    assert found[1].outputs == (None,)
    assert found[2].outputs == (b"1", None)


def test_what_is_left_out_of_a_brief_record_is_as_it_is_by_default(tmp_path: Path) -> None:
    """The same queries, held and written one by one, are read as the same decisions."""

    async def whole() -> list[list[Decision]]:
        queries = [
            Answered(1, b"1"),
            Answered(2, b"2", context="u", confidence=0.5),
            Answered(3, b"3", features=b"\0" * 8),
            Answered(4, b"4", raw_confidence=0.75),
            Answered(5, b"5", pinned="2"),
            Answered(6, b"6", choice=Choice(("a",), (1.0,), beliefs=((1.0, 2.0),))),
        ]
        found = []
        for name in ("held", "alone"):
            log = DecisionLog(tmp_path / name, "w", LEAST_LOG_BYTES)
            taker = ApplicationDecisions(log, SETTING, 1.0, NOTHING)
            for query in queries:
                taker.add(query, None, 0.25)
                if name == "alone":
                    log.flush()
            await log.close()
            pieces = LogReader(tmp_path / name).decisions()
            found.append([replace(each, time_s=0.0) for piece in pieces for _, each in piece])
        return found

    held, alone = asyncio.run(whole())
    assert held == alone
    assert [each.query_id for each in held] == [1, 2, 3, 4, 5, 6]
    assert (held[1].context, held[1].confidence, held[4].pinned) == ("u", 0.5, "2")


def test_no_block_of_held_queries_outgrows_the_smallest_segment(tmp_path: Path) -> None:
    queries = [Answered(number, b"x" * (number % 1500), context="u" * (number % 900)) for number in range(3000)]
    found = written(tmp_path, *queries)
    assert sorted(found) == list(range(3000))
    smallest = LEAST_LOG_BYTES // RESERVED_PART // MAX_WRITERS
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= smallest


def test_inputs_are_written_without_what_is_redacted(tmp_path: Path) -> None:
    """Held, and one by one; also in outputs, answers, labels and the default."""
    person = parse_type("age: float64, name: string")
    assert isinstance(person, RecordType)
    rows = [RecordRows(person).row([float(age), b"SECRET"]) for age in range(4)]
    record = make_record(OutputNames(("name", "x")), (b'"SECRET"', b"1"))
    setting = replace(SETTING, default=b'{"name": "SECRET"}')

    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        taker = ApplicationDecisions(log, setting, 1.0, Redaction("name", person), keeps_inputs=True)
        taker.add(Answered(0, b'{"name": "SECRET"}'), rows[0], 0.25)
        taker.add(Answered(1, record), rows[1], 0.25)
        both = Choice(("a", "b"), (0.5, 0.5))
        several = {"a": b'{"name": "SECRET", "x": 1}', "b": b"2"}
        taker.add(Answered(2, several["a"], choice=both, outputs=several), rows[2], 0.25)
        taker.add(Answered(3, b'{"name": "SECRET", "x": "' + b"y" * 100_000 + b'"}'), rows[3], 0.25)
        taker.add(Answered(4, b"5"), bytes(log.most_input_bytes + 1), 0.25)
        taker.judge(1, b'{"name": "SECRET", "x": 2}', None, {"a": 0.0}, 0.0)
        taker.judge_late(2, b'{"name": "SECRET", "x": "' + b"y" * 100_000 + b'"}', None, Selection("single"))
        await log.close()

    asyncio.run(whole())
    assert all(b"SECRET" not in path.read_bytes() for path in tmp_path.iterdir())
    reader = LogReader(tmp_path)
    (found,) = [{each.query_id: (setting, each) for setting, each in piece} for piece in reader.decisions()]
    assert {setting.input_type for setting, _ in found.values()} == {"age: float64"} == set(reader.input_types())
    assert [found[number][1].input for number in range(5)] == [*(row[:8] for row in rows), None]
    outputs = [found[number][1].outputs for number in range(4)]
    assert outputs == [(b"{}",), (b'{"x":1}',), (b'{"x":1}', b"2"), (b"",)]
    assert (found[2][1].answer, found[3][1].is_cut, found[0][0].default) == (b'{"x":1}', True, b"{}")
    (piece,) = reader.judgements()
    assert [each.label for each in piece] == [b'{"x":2}', None]


def test_no_block_with_inputs_and_settings_outgrows_the_smallest_segment(tmp_path: Path) -> None:
    """Of many applications, each of whose settings are as long as they may be."""

    async def whole() -> None:
        log = DecisionLog(tmp_path, "w", LEAST_LOG_BYTES)
        fields = ", ".join(f"{'f' * 200}{number}: float64" for number in range(140))
        of_type = parse_type(fields)
        assert log.most_input_bytes // 2 < len(str(of_type)) <= log.most_input_bytes
        takers = [
            ApplicationDecisions(
                log,
                replace(SETTING, application=f"app{number}", default=b"x" * 9000),
                1.0,
                Redaction(None, of_type),
                True,
            )
            for number in range(20)
        ]
        for number in range(400):
            size = (number * 7919) % log.most_input_bytes
            await until_async(lambda: log.statistics().waiting_bytes < log_module.MAX_WAITING_BYTES // 2)
            takers[number % 20].add(Answered(number, b"1"), bytes(size if number % 3 else number % 256), 0.25)
        await log.close()
        assert log.statistics().dropped == {"queue_full": 0, "write_failed": 0}

    asyncio.run(whole())
    reader = LogReader(tmp_path)
    found = [(s, d) for piece in reader.decisions() for s, d in piece]
    assert sorted(d.query_id for _, d in found) == list(range(400)) and not reader.damaged
    assert all(s.application == f"app{d.query_id % 20}" and d.input is not None for s, d in found)
    smallest = LEAST_LOG_BYTES // RESERVED_PART // MAX_WRITERS
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= smallest
