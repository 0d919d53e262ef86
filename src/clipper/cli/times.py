"""Times as commands take and show them."""

import re
import time
from datetime import datetime
from typing import Annotated

import typer

from clipper.tls.expiry import day, duration

_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_past(text: str) -> float:
    """Read ``2026-05-01T12:00``, local unless it has a time zone, or ``12h``, which is 12 hours ago.

    Returns:
        Seconds since 1970.
    """
    return _parse(text, -1, "12h for 12 hours ago")


def parse_future(text: str) -> float:
    """Read a time as ``parse_past`` does, but that ``90d`` is in 90 days."""
    return _parse(text, 1, "90d for 90 days from now")


def _parse(text: str, direction: int, example: str) -> float:
    if span := _SPAN.fullmatch(text):
        return time.time() + direction * float(span[1]) * _SECONDS[span[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a time: expected e.g. 2026-05-01T12:00, or {example}") from error


Expires = Annotated[
    float | None,
    typer.Option(
        "--expires",
        help="Refuse it from this time on, e.g. 90d for 90 days from now, or 2027-01-31.",
        parser=parse_future,
        metavar="TIME",
        show_default="never",
    ),
]


def until(at_s: float | None) -> str:
    """Return when something expires, and how long it is until then, for a table."""
    if at_s is None:
        return "never"
    left_s = at_s - time.time()
    return f"in {duration(left_s)} ({day(at_s)})" if left_s > 0 else f"expired {day(at_s)}"
