"""A worker's notes and their receivers, with the settings that operators give it."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

from clipper.settings.server import TelemetrySettings
from clipper.worker.telemetry.request_note import EndedQuery, RequestNote
from clipper.worker.telemetry.watch import ACCESS_LINES, MAX_PATH_CHARACTERS, SLOW_LINES, Watch

PATH = "/app/predict?key=secret"


def watching(folder: Path, **settings: Any) -> Watch:
    return Watch(TelemetrySettings(log_format="json", **settings), folder, 0, None, Random(1), lambda: 0.0)


def note(watch: Watch, request_id: str = "", path: str = PATH) -> RequestNote | None:
    return watch.note(watch.draw(), 10.0, request_id, [], [], lambda: ("POST", path, "127.0.0.1"))


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}-0.log").read_text().splitlines()]


def ended(took_s: float, at_s: float = 20.0) -> EndedQuery:
    return EndedQuery("app", 7, at_s - took_s, at_s, 0.02, ("m",), 1, "", None)


def test_only_requests_that_somebody_wants_to_know_of_are_noted(tmp_path: Path) -> None:
    watch = watching(tmp_path, slow_query_ms=10.0)
    assert note(watch) is None
    found = note(watch, "mine")
    assert found is not None and (found.id, found.path, found.is_logged, found.span) == ("mine", "", False, None)


def test_a_share_of_requests_is_logged_and_each_of_these_has_an_id(tmp_path: Path) -> None:
    watch = watching(tmp_path, access_log=0.1)
    notes = [each for each in (note(watch) for _ in range(1000)) if each is not None]
    assert 60 <= len(notes) <= 140
    assert len({each.id for each in notes}) == len(notes) and {each.path for each in notes} == {"/app/predict"}
    assert all(each.is_logged for each in notes)


def test_a_path_is_cut(tmp_path: Path) -> None:
    found = note(watching(tmp_path, access_log=1.0), path="/" + "x" * 10_000)
    assert found is not None and len(found.path) == MAX_PATH_CHARACTERS


def test_lines_over_the_bound_are_left_out_and_the_next_one_says_how_many(tmp_path: Path) -> None:
    watch = watching(tmp_path, access_log=1.0)
    found = note(watch)
    assert found is not None
    for _ in range(ACCESS_LINES + 5):
        watch.answered(found, "200", False, 11.0, 70, "http")
    assert watch.statistics().lines_left_out == {"access": 5}
    watch.answered(found, "200", False, 12.0, 70, "http")
    asyncio.run(watch.close())
    written = lines(tmp_path, "access")
    assert len(written) == ACCESS_LINES + 1
    assert [line.get("left_out") for line in written[-2:]] == [None, 5]
    statistics = watch.statistics()
    assert (statistics.lines_written, statistics.lines_left_out) == ({"access": ACCESS_LINES + 1}, {"access": 5})
    assert (statistics.spans_exported, statistics.spans_dropped, statistics.problems) == (None, {}, ())


def test_slow_queries_are_logged_within_their_bound(tmp_path: Path) -> None:
    watch = watching(tmp_path, slow_query_ms=10.0)
    watch.ended(ended(0.009))
    for _ in range(SLOW_LINES + 3):
        watch.ended(ended(0.011))
    asyncio.run(watch.close())
    assert {line["duration_ms"] for line in lines(tmp_path, "slow")} == {11.0}
    assert watch.statistics().lines_left_out == {"slow": 3}


def test_without_a_slow_query_log_none_is_slow(tmp_path: Path) -> None:
    watch = watching(tmp_path, access_log=1.0)
    assert watch.slow_s == float("inf")
    watch.ended(ended(1000.0))
    asyncio.run(watch.close())
    assert list(tmp_path.iterdir()) == []


def test_what_a_request_asked_is_noted(tmp_path: Path) -> None:
    watch = watching(tmp_path, access_log=1.0)
    found = note(watch)
    assert found is not None
    for query_id in (5, 6):
        assert watch.begin(found, "app", query_id, 30.0).span is None
    assert (found.application, found.queries, found.query_id) == ("app", 2, 5)
    assert watch.traced_until_s == 0.0


def test_what_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "slow-0.log").symlink_to("/dev/full")
    watch = watching(tmp_path, slow_query_ms=0.0)
    watch.ended(ended(0.1))
    asyncio.run(watch.close())
    (problem,) = watch.statistics().problems
    assert problem.startswith("cannot write slow-0.log: OSError")
    assert watch.statistics().lines_left_out == {"slow": 1}
