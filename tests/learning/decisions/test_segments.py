"""Segments: rotation within a bound, and what cannot be written."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipper.learning.decisions.reading import LogReader
from clipper.learning.decisions.records import SEGMENT_HEAD
from clipper.learning.decisions.segments import SegmentWriter, segments
from tests.learning.decisions.log_files import SETTING, block_of, decision


def size_of(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries)


def ids_in(folder: Path) -> list[int]:
    reader = LogReader(folder)
    found = [each.query_id for piece in reader.decisions() for _, each in piece]
    assert (reader.torn, reader.damaged) == (set(), {})
    return found


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """A disk that is full: no file of this process may grow beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.long
def test_several_writers_stay_within_the_bound_at_every_moment(tmp_path: Path) -> None:
    max_bytes = 512 * 2400
    writers = [SegmentWriter(tmp_path, f"w{number}", max_bytes) for number in range(5)]
    for number in range(1100):
        block = block_of(SETTING, decision(number, outputs=(b"x" * (100 + 37 * number % 1900),)))
        # One writes far more than the others.
        writers[number % 5 if number % 3 else 0].write(block)
        assert size_of(tmp_path) <= max_bytes
    for writer in writers:
        writer.close()
    kept = ids_in(tmp_path)
    assert size_of(tmp_path) > max_bytes // 2
    assert max(kept) == 1099 and min(kept) > 0


@pytest.mark.long
def test_the_oldest_goes_first_and_the_rest_stays_whole(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w", 512 * 1024)
    for number in range(900):
        writer.write(block_of(SETTING, decision(number, outputs=(b"x" * 500,))))
    kept = ids_in(tmp_path)
    assert kept == list(range(kept[0], 900)) and kept[0] > 0


def test_a_segment_that_another_worker_removed_is_not_gone_on_with(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w", 1 << 26)
    writer.write(block_of(SETTING, decision(1)))
    segments(tmp_path)[0].path.unlink()
    writer.write(block_of(SETTING, decision(2)))
    assert ids_in(tmp_path) == [2]


def test_two_of_one_name_and_moment_do_not_meet(tmp_path: Path) -> None:
    one, other = SegmentWriter(tmp_path, "w", 1 << 26), SegmentWriter(tmp_path, "w", 1 << 26)
    one.write(block_of(SETTING, decision(1)))
    other.write(block_of(SETTING, decision(2)))
    assert sorted(ids_in(tmp_path)) == [1, 2]
    assert len(segments(tmp_path)) == 2


def test_a_full_disk_costs_the_block_and_no_other(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w", 1 << 26)
    first, second = block_of(SETTING, decision(1)), block_of(SETTING, decision(2, outputs=(b"x" * 500,)))
    writer.write(first)
    # A part of the second block still fits.
    with files_up_to(len(SEGMENT_HEAD) + len(first) + 100), pytest.raises(OSError) as raised:
        writer.write(second)
    assert raised.value.errno == errno.EFBIG
    writer.write(block_of(SETTING, decision(3)))
    assert ids_in(tmp_path) == [1, 3]


def test_no_room_even_for_a_segments_head_leaves_no_file(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w", 1 << 26)
    with files_up_to(0), pytest.raises(OSError):
        writer.write(block_of(SETTING, decision(1)))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_segment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "x-w1.decisions").write_text("mine")
    writer = SegmentWriter(tmp_path, "w", 512 * 1024)
    for number in range(650):
        writer.write(block_of(SETTING, decision(number, outputs=(b"x" * 700,))))
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "x-w1.decisions").exists()


def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    SegmentWriter(folder, "w", 1 << 26).write(block_of(SETTING, decision(1)))
    modes = [path.stat().st_mode & 0o777 for path in (folder, segments(folder)[0].path)]
    assert modes == [0o700, 0o600]
