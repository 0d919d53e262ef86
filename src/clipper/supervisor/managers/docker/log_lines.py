"""A container's output as Docker gives it: before each line stands the time when it was written."""

from datetime import UTC, datetime

# All times have this width, so texts compare as times do.
_TIME_FORM = "0000-00-00T00:00:00.000000000Z"


def lines_after(output: bytes, time: str) -> tuple[bytes, str]:
    """The lines of ``output`` written after ``time``, without their times, and the time of the last of them."""
    kept, is_new = [], False
    for line in output.splitlines(keepends=True):
        written, blank, text = line.partition(b" ")
        if not blank or len(written) != len(_TIME_FORM):
            text = line  # the rest of a long line, which Docker has split
        elif is_new := written.decode() > time:
            time = written.decode()
        if is_new:
            kept.append(text)
    return b"".join(kept), time


def line_time(nanoseconds: int) -> str:
    """A time since the epoch, in the form that Docker uses."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def nanoseconds(time: str) -> int:
    """The reverse of ``line_time``."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1_000_000_000 + int(fraction)
