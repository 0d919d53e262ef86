"""The journal: after a kill at any byte, what goes on makes the same output."""

import fcntl
import os
import resource
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.cli.score.journal import Done, Job, Journal, read_sources
from clipper.errors import Conflict, InvalidArgument
from tests.example_counts import share_of

JOB = Job("app m", "1", (), "")
HEADER = b"a,output\n"
CHUNKS = [b"1,2\n" * number for number in range(1, 8)]


def write(journal: Journal, most: int | None = None) -> None:
    for number in range(journal.done.position, len(CHUNKS) if most is None else most):
        journal.add(Done(0, number + 1, journal.done.rows + number + 1, 0), CHUNKS[number])


@settings(max_examples=share_of(200))
@given(chunks=st.integers(0, 7), partial=st.floats(0, 1), lines=st.floats(0, 1), garbage=st.binary(max_size=5))
def test_it_goes_on_where_both_files_agree(
    tmp_path_factory: pytest.TempPathFactory, chunks: int, partial: float, lines: float, garbage: bytes
) -> None:
    output = tmp_path_factory.mktemp("job") / "out.csv"
    journal = Journal(output)
    journal.begin(JOB, HEADER)
    write(journal, chunks)
    journal.close()
    # Either file may lack any part of its end, as after a power cut, and have something else there.
    for path, share in ((journal.partial, partial), (journal.path, lines)):
        data = path.read_bytes()
        path.write_bytes(data[: round(share * len(data))] + (garbage if share < 1 else b""))
    again = Journal(output)
    again.begin(JOB, HEADER)
    assert again.done.position <= chunks
    write(again)
    again.finish(None)
    assert output.read_bytes() == HEADER + b"".join(CHUNKS)
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.csv"]


@settings(max_examples=share_of(200))
@given(data=st.data(), chunks=st.integers(1, 7))
def test_a_journal_that_was_edited_is_believed_up_to_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, chunks: int
) -> None:
    output = tmp_path_factory.mktemp("job") / "out.csv"
    journal = Journal(output)
    journal.begin(JOB, HEADER)
    write(journal, chunks)
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    changed = data.draw(st.integers(0, len(lines) - 1))
    lines[changed : changed + 1] = data.draw(
        st.one_of(
            st.just([]),
            st.just([lines[changed], lines[changed]]),
            st.just([b"[0,7,28,0,1000,0] 00000000\n"]),
            st.just([b"[-1,-1,-1,-1,-1,-1]\n"]),
            st.just([lines[changed].replace(b",", b", ", 1)]),
            st.just([lines[changed].replace(b"0", b"1", 1).replace(b"1", b"2", 1)]),
            st.binary(max_size=40).map(lambda text: [text]),
        )
    )
    journal.path.write_bytes(b"".join(lines))
    again = Journal(output)
    again.begin(JOB, HEADER)
    assert again.done.position in range(chunks + 1)
    write(again)
    again.finish(None)
    assert output.read_bytes() == HEADER + b"".join(CHUNKS)


@pytest.mark.parametrize(
    ("made", "left"), [(False, ("journal",)), (True, ("journal",)), (True, ("partial", "journal"))]
)
def test_a_kill_while_the_output_comes_to_its_place_costs_nothing(
    tmp_path: Path, made: bool, left: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``made``: as with Parquet, whose output is made of the partial one. ``left``: what was not removed yet."""
    output = tmp_path / "out.csv"
    journal = Journal(output)
    journal.begin(JOB, HEADER)
    write(journal)
    (tmp_path / "made").write_bytes(b"Parquet")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "clear", lambda self: None)
        journal.finish(tmp_path / "made" if made else None)
    journal.close()
    if "partial" not in left:
        journal.partial.unlink(missing_ok=True)
    again = Journal(output)
    assert again.is_complete and again.done.rows == journal.done.rows
    again.clear()
    assert {path.name for path in tmp_path.iterdir()} - {"made"} == {"out.csv"}


def test_a_complete_journal_without_any_output_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "out.csv")
    journal.begin(JOB, HEADER)
    write(journal)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "clear", lambda self: None)
        journal.finish(None)
    journal.close()
    journal.output.rename(tmp_path / "moved.csv")
    again = Journal(tmp_path / "out.csv")
    assert again.job is None and not again.is_complete
    again.close()


def test_an_output_that_has_come_meanwhile_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.csv")
    journal.begin(JOB, HEADER)
    write(journal)
    journal.output.write_text("somebody's\n")
    with pytest.raises(Conflict, match="move it away"):
        journal.finish(None)
    journal.close()
    journal.output.rename(tmp_path / "theirs.csv")
    again = Journal(tmp_path / "out.csv")
    again.begin(JOB, HEADER)
    again.finish(None)
    assert again.output.read_bytes() == HEADER + b"".join(CHUNKS)


def test_a_full_disk_ends_the_job_where_it_goes_on_later(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path / "out.csv")
    journal.begin(JOB, HEADER)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, before[1]))
    try:
        with pytest.raises(InvalidArgument, match="cannot be written: File too large"):
            write(journal)
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = Journal(tmp_path / "out.csv")
    again.begin(JOB, HEADER)
    write(again)
    again.finish(None)
    assert again.output.read_bytes() == HEADER + b"".join(CHUNKS)


def test_an_input_that_changes_while_it_is_read_ends_the_job(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a\n1\n")
    journal = Journal(tmp_path / "out.csv")
    journal.begin(Job("app m", "1", read_sources([source]), ""), HEADER)
    journal.check_source(0)
    write(journal)
    with source.open("a") as file:
        file.write("2\n")
    with pytest.raises(Conflict, match="has changed while it was read"):
        journal.check_source(0)
    with pytest.raises(Conflict, match="has changed while it was read"):
        journal.finish(None)
    source.unlink()
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        journal.check_source(0)
    journal.close()
    assert not journal.output.exists()


def test_inputs_are_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "."):
        with pytest.raises(InvalidArgument, match="is no file"):
            read_sources([tmp_path / name])


def test_a_journal_that_was_removed_is_not_shared_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was opened before it was removed, and locked after: the next process would have another one."""
    flock, removed = fcntl.flock, []

    def removed_first(file: BinaryIO, operation: int) -> None:
        if not removed:
            removed.append((tmp_path / "out.csv.journal").unlink())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    journal = Journal(tmp_path / "out.csv")
    with pytest.raises(Conflict, match="another process"):
        Journal(tmp_path / "out.csv")
    journal.close()


def test_rows_that_have_a_line_are_not_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.csv")
    journal.begin(JOB, HEADER)
    write(journal, 3)
    journal.close()
    again = Journal(tmp_path / "out.csv")
    assert (again.done.position, again.done.rows) == (3, 6)
    again.close()


def test_another_job_is_refused_and_another_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.csv")
    journal.begin(JOB, HEADER)
    with pytest.raises(Conflict, match="another process"):
        Journal(tmp_path / "out.csv")
    journal.close()
    again = Journal(tmp_path / "out.csv")
    with pytest.raises(Conflict, match="changed since"):
        again.begin(Job("app m", "2", JOB.sources, ""), HEADER)
    again.close()


def test_a_journal_without_a_job_leaves_nothing(tmp_path: Path) -> None:
    Journal(tmp_path / "out.csv").close()
    assert list(tmp_path.iterdir()) == []
