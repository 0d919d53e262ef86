"""The file of events: what is written is read again, and what is wrong with it stops nothing."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipper.api.events import Event
from clipper.supervisor.history import events as module
from clipper.supervisor.history.event_log import MAX_EVENTS
from clipper.supervisor.history.events import EventFile
from tests.example_counts import share_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def event(id_: int, message: str = "it is started") -> Event:
    return Event(id_, 1e9, "server", "server", message)


def written(path: Path, *events: Event) -> None:
    file = EventFile(path)
    file.load()
    assert file.append(events, lambda: events)
    file.close()


def test_what_was_written_is_read_again(path: Path) -> None:
    events = [event(1), event(2, 'a "line"\n\u2028\ud7ff\x00\x1b and 日本'), event(7)]
    written(path, *events[:2])
    written(path, events[2])
    file = EventFile(path)
    assert file.load() == events
    assert file.problem is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().count(b"\n") == 3
    file.close()


@given(text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=share_of(50))
def test_any_message_stays_one_line(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    shown = text.encode(errors="replace").decode()
    written(path, event(1, shown))
    file = EventFile(path)
    assert file.load() == [event(1, shown)]
    file.close()


def test_a_file_that_somebody_removed_is_written_again(path: Path) -> None:
    file = EventFile(path)
    assert file.load() == []
    assert file.append([event(1)], list)
    path.unlink()
    assert file.append([event(2)], lambda: [event(1), event(2)])
    assert file.append([event(3)], list) and file.problem is None
    file.close()
    again = EventFile(path)
    assert again.load() == [event(1), event(2), event(3)]
    again.close()


def test_an_end_that_was_cut_short_is_dropped(path: Path) -> None:
    written(path, event(1), event(2))
    path.write_bytes(path.read_bytes()[:-5])
    file = EventFile(path)
    assert file.load() == [event(1)] and file.problem is None
    assert file.append([event(2)], list)
    file.close()
    again = EventFile(path)
    assert again.load() == [event(1), event(2)] and again.problem is None
    again.close()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


# Values that no event of ours has.
STRANGE = b"".join(
    b'{"id":%s,"time_s":%s,"kind":"server","subject":"server","message":""}\n' % each
    for each in ((b"9", b"1e300"), (b"9", b"-1"), (b"9007199254740993", b"1"), (b"-7", b"1"))
)


@pytest.mark.parametrize(
    "garbage", [b"\xff\xfe\x00\n", b"{}\n", b"[" * 100_000 + b"\n", b'{"id":1}\n\n\n', b'{"id":"x"}\n', b"\n", STRANGE]
)
def test_what_cannot_be_read_is_kept_aside_and_told(path: Path, garbage: bytes) -> None:
    written(path, event(5))
    path.write_bytes(path.read_bytes() + garbage + b'{"id":6,"time_s":1,"kind":"of a newer Clipper"}\n')
    before = path.read_bytes()
    file = EventFile(path)
    assert file.load() == [event(5)]
    lost = garbage.count(b"\n") + 1
    assert file.problem == (
        f"{lost} lines of events.jsonl cannot be read and are left out: the file is events.jsonl.damaged now"
    )
    assert path.with_name("events.jsonl.damaged").read_bytes() == before
    assert file.append([event(6)], list)
    # It is still to be looked at.
    assert file.problem is not None
    file.close()
    again = EventFile(path)
    assert again.load() == [event(5), event(6)] and again.problem is None
    again.close()


def test_numbers_that_do_not_count_up_are_no_events(path: Path) -> None:
    written(path, event(5), event(5, "again"), event(3), event(6))
    file = EventFile(path)
    assert file.load() == [event(5), event(6)]
    assert file.problem is not None and file.problem.startswith("2 lines")
    file.close()


def test_unknown_fields_of_a_newer_clipper_are_left_out(path: Path) -> None:
    path.write_bytes(b'{"id":1,"time_s":1e9,"kind":"server","subject":"server","message":"it is started","mood":7}\n')
    file = EventFile(path)
    assert file.load() == [event(1)] and file.problem is None
    file.close()


def make_folder(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [make_folder, make_pipe, make_link])
def test_what_is_no_file_is_a_problem_until_it_is_gone(path: Path, make: "type[None]") -> None:
    make(path)  # type: ignore[call-arg]
    file = EventFile(path)
    assert file.load() == []
    assert file.problem is not None and file.problem.startswith(f"events cannot be kept in {path}: ")
    assert not file.append([event(1)], list)
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    assert file.append([event(1), event(2)], list)
    assert file.problem is None
    file.close()
    written(path)
    again = EventFile(path)
    assert again.load() == [event(1), event(2)]
    again.close()


@pytest.fixture
def small_disk() -> Iterator[int]:
    """Files may have 1,000 bytes: beyond that a write is cut short, and the next one fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_leaves_whole_lines(path: Path, small_disk: int) -> None:
    file, kept = EventFile(path), 0
    while file.append([event(kept + 1)], list):
        kept += 1
    assert 5 < kept < small_disk
    assert file.problem is not None and ("disk" in file.problem or os.strerror(errno.EFBIG) in file.problem)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert file.append([event(kept + 1)], list) and file.problem is None
    file.close()
    again = EventFile(path)
    assert [one.id for one in again.load()] == list(range(1, kept + 2))
    assert again.problem is None
    again.close()


def test_a_file_that_has_grown_is_written_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINES", 10)
    file = EventFile(path)
    file.load()
    kept = [event(number) for number in range(20, 24)]
    for number in range(1, 12):
        assert file.append([event(number)], lambda: kept)
    file.close()
    again = EventFile(path)
    assert again.load() == kept
    again.close()


def test_only_the_latest_are_read(path: Path) -> None:
    written(path, *(event(number) for number in range(1, MAX_EVENTS + 4)))
    file = EventFile(path)
    found = file.load()
    assert (len(found), found[0].id) == (MAX_EVENTS, 4)
    file.close()
