import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument
from clipper.supervisor.managers.logs import (
    LOST,
    MAX_TAIL_BYTES,
    LogKeeper,
    end_of,
    in_text,
    logs_after,
    read_on,
    remove,
    rotated,
    tail,
    without_credentials,
)
from tests.waiting import until_async


def test_the_tail_goes_back_into_the_part_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert tail(path, 3) == ()
    rotated(path).write_text("1\n2\n")
    path.write_text("3\n4")
    assert tail(path, 3) == ("2", "3", "4")
    assert tail(path, 1) == ("4",)
    assert tail(path, 9) == ("1", "2", "3", "4")


def test_the_tail_of_one_start_has_nothing_from_before(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    since = path.stat().st_size
    assert tail(path, 9, since) == ()
    with path.open("a") as log:
        log.write("new\n")
    assert tail(path, 9, since) == ("new",)


def test_a_tail_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xff\xfe\n\0ok\n")
    assert tail(path, 1) == ("\0ok",)


def test_a_record_in_json_becomes_what_a_log_in_text_has() -> None:
    record = {
        "time": "2026-05-01T12:00:00.250Z",
        "level": "warning",
        "logger": "clipper.runtime",
        "message": "slow",
    }
    assert in_text(json.dumps(record)) == ("2026-05-01T12:00:00.250Z clipper WARNING: slow",)
    last = record | {"level": "critical", "message": "no model", "exception": "Traceback\n  here", "model": "m"}
    assert in_text(json.dumps(last)) == ("Traceback", "  here", "clipper: no model")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "loading",
            "{",
            '{"time": 1',
            '{"time": 1}',
            '{"time": 1, "level": 5, "message": ""}',
            '{"time": "\ud800"}',
        ),
        *('["time"]', '{"time": ' + "[" * 100_000, '{"level": "critical", "message": "mine"}'),
    ],
)
def test_what_a_model_prints_stays(line: str) -> None:
    assert in_text(line) == (line,)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def cut(path: Path) -> None:
    """As ``LogKeeper`` does it."""
    rotated(path).write_bytes(path.read_bytes())
    path.write_bytes(b"")


def test_reading_on_gets_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "1\n")
    place = end_of(path)
    append(path, "2\n3")
    lines, place = read_on(path, place)
    assert lines == ("2",)
    append(path, "3\n")
    lines, place = read_on(path, place)
    assert lines == ("33",)
    assert read_on(path, place) == ((), place)


def test_reading_on_over_a_cut_loses_nothing_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "1\n2\n")
    place = end_of(path)
    append(path, "3\n")
    cut(path)
    append(path, "a longer line than all before it together\n")
    lines, place = read_on(path, place)
    assert lines == ("3", "a longer line than all before it together")
    cut(path)
    cut(path)
    append(path, "4\n")
    assert read_on(path, place)[0] == (LOST, "4")


def test_reading_on_in_a_log_that_was_emptied_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "1\n2\n")
    place = end_of(path)
    path.write_text("3\n")
    lines, place = read_on(path, place)
    assert lines == (LOST, "3")
    path.unlink()
    assert read_on(path, place)[0] == (LOST,)


def test_reading_on_is_bounded_also_in_a_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "x" * (MAX_TAIL_BYTES + 10) + "\n")
    lines, place = read_on(path, "0.")
    assert [len(line) for line in lines] == [MAX_TAIL_BYTES]
    assert read_on(path, place)[0] == ("x" * 10,)


@pytest.mark.parametrize("place", ["", "1", "x.00", "1.0", "-1.", "1.zz", f"{10**20}.", "1." + "00" * 65])
def test_what_is_no_place(tmp_path: Path, place: str) -> None:
    with pytest.raises(InvalidArgument, match="place"):
        read_on(tmp_path / "a.log", place)


def test_a_log_without_a_place_is_read_from_its_last_lines(tmp_path: Path) -> None:
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    append(old, "1\n")
    place = end_of(old)
    append(old, "2\n")
    append(new, "1\n2\n3\n")
    found = logs_after({"old": old, "new": new}, {"old": place}, 2)
    assert {name: lines for name, (lines, _) in found.items()} == {"old": ("2",), "new": ("2", "3")}
    assert read_on(new, found["new"][1])[0] == ()


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes("a\u2028b\x0bc\x85d\r\ne\n".encode())
    assert tail(path, 9) == ("a\u2028b\x0bc\x85d", "e")


def test_remove(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("x")
    remove(path)
    remove(path)
    assert list(tmp_path.iterdir()) == []


async def keep_until(keeper: LogKeeper, condition: Callable[[], object]) -> None:
    task = asyncio.create_task(keeper.run())
    await until_async(condition)
    task.cancel()
    await asyncio.wait([task])


def test_a_process_that_prints_without_end_is_kept_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("ab") as log:
        program = "import itertools\nfor i in itertools.count(): print(i, 'x' * 100)"
        process = subprocess.Popen([sys.executable, "-c", program], stdout=log)
    cuts = set()

    def cut_often() -> bool:
        if rotated(path).exists():
            cuts.add(rotated(path).stat().st_mtime_ns)
            assert rotated(path).stat().st_size <= 1_000_000
        return len(cuts) >= 5

    keeper = LogKeeper(tmp_path, 1_000_000)
    try:
        asyncio.run(keep_until(keeper, cut_often))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    # Between two looks the log grows with time, whatever its size, so its size is looked at once the process has ended.
    asyncio.run(keep_until(keeper, lambda: path.stat().st_size <= 1_000_000))
    assert len(tail(path, 3)) == 3


def test_the_newest_part_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a" * 1000 + b"b" * 1000)
    asyncio.run(keep_until(LogKeeper(tmp_path, 1000), lambda: path.stat().st_size == 0))
    assert rotated(path).read_bytes() == b"b" * 1000


def test_a_log_is_cut_even_if_the_rest_cannot_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a" * 2000)
    rotated(path).mkdir()  # a name that cannot be written stands for a disk that is full
    asyncio.run(keep_until(LogKeeper(tmp_path, 1000), lambda: path.stat().st_size == 0))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("installing a from https://ci:s3@ret@host/simple", "installing a from https://***@host/simple"),
        ("a @ git+https://token@host/a@v1 (b)", "a @ git+https://***@host/a@v1 (b)"),
        ("http://u:p@a/x http://u:p@b", "http://***@a/x http://***@b"),
        ("https://host/a@1.0 me@host", "https://host/a@1.0 me@host"),
    ],
)
def test_names_and_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
