"""A log on a thread: lines reach the file in order; a disk that takes nothing costs lines, and nothing else."""

import os
from pathlib import Path

import pytest

from clipper.worker.telemetry.log_file import MAX_WAITING_BYTES, LogFile
from tests.waiting import until


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    for number in range(1000):
        log.add(b"%d\n" % number)
    log.close()
    assert (tmp_path / "a.log").read_text().split() == [str(number) for number in range(1000)]
    assert (log.done, log.over, log.failed, log.problem) == (1000, 0, 0, None)
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_a_log_without_lines_makes_no_file(tmp_path: Path) -> None:
    LogFile(tmp_path / "a.log").close()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_on_in_a_log_that_was_cut_moved_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = LogFile(path)
    log.add(b"1\n")
    until(lambda: log.done == 1)
    os.truncate(path, 0)
    log.add(b"2\n")
    until(lambda: path.read_text() == "2\n")
    path.rename(tmp_path / "moved")
    log.add(b"3\n")
    until(lambda: path.exists() and path.read_text() == "3\n")
    path.unlink()
    log.add(b"4\n")
    log.close()
    assert path.read_text() == "4\n"


def test_a_full_disk_is_reported_once_and_costs_lines_only(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.symlink_to("/dev/full")
    log = LogFile(path)
    for number in range(1, 4):
        log.add(b"lost\n")
        until(lambda: log.failed == number)  # noqa: B023
    assert log.problem is not None and "No space left" in log.problem
    assert caplog.text.count("cannot write") == 1
    path.unlink()
    log.add(b"kept\n")
    until(lambda: log.done == 1)
    assert log.problem is None
    assert "can write a.log again" in caplog.text
    log.close()


def test_a_file_that_nobody_cuts_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.worker.telemetry.log_file.MAX_FILE_BYTES", 100)
    monkeypatch.setattr("clipper.worker.telemetry.log_file.GATHER_S", 0.0)
    path = tmp_path / "a.log"
    log = LogFile(path)
    for number in range(1, 101):
        log.add(b"a line\n")
        until(lambda: log.done + log.failed == number)  # noqa: B023
    assert path.stat().st_size < 120 and log.failed > 0
    assert log.problem is not None and "no supervisor has cut it" in log.problem
    os.truncate(path, 0)
    log.add(b"the last line\n")
    log.close()
    assert path.read_text() == "the last line\n"


def test_a_disk_that_hangs_costs_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.worker.telemetry.log_file.CLOSE_TIMEOUT_S", 0.05)
    path = tmp_path / "a.log"
    os.mkfifo(path)  # to open it waits for a reader
    log = LogFile(path)
    line = b"x" * 1023 + b"\n"
    for _ in range(2 * MAX_WAITING_BYTES // len(line)):
        log.add(line, len(line))
    assert log.over > 0
    log.close()
    with path.open("rb") as reader:  # the thread goes on
        assert reader.read(len(line)) == line
