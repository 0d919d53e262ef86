"""The lines that a container wrote, as Docker gives them."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.supervisor.managers.docker.options import line_time, lines_after, nanoseconds

TIMES = st.integers(0, 2**62)


def told(lines: list[tuple[int, bytes]]) -> bytes:
    return b"".join(line_time(time).encode() + b" " + text + b"\n" for time, text in lines)


@given(TIMES)
def test_times_are_read_as_they_are_written(time: int) -> None:
    assert nanoseconds(line_time(time)) == time


@given(st.lists(st.tuples(TIMES, st.sampled_from([b"", b"a", b"2 words"])), max_size=5), st.integers(0, 5))
def test_lines_are_taken_once(lines: list[tuple[int, bytes]], seen: int) -> None:
    lines = sorted(dict(lines).items())
    first, until = lines_after(told(lines[:seen]), line_time(-1 + (lines[0][0] if lines else 1)))
    # Docker tells those of the last moment again.
    rest, _ = lines_after(told(lines[max(0, seen - 1) :]), until)
    assert first + rest == b"".join(text + b"\n" for _, text in lines)


def test_a_line_that_docker_split_stays_in_one_piece() -> None:
    output = told([(1, b"old")]) + b"old goes on\n" + told([(2, b"new")]) + b"new goes on\n"
    assert lines_after(output, line_time(1)) == (b"new\nnew goes on\n", line_time(2))
