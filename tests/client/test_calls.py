"""Polls of a server that may be away."""

from collections.abc import Callable

import pytest

from clipper.client import calls
from clipper.client.calls import ignore, looks
from clipper.errors import NotFound, Unavailable


def reading(*steps: int | Exception) -> Callable[[], int]:
    """Returns or raises each step in turn."""
    left = iter(steps)

    def read() -> int:
        step = next(left)
        if isinstance(step, Exception):
            raise step
        return step

    return read


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    told: list[str] = []
    found = looks(60, reading(1, Unavailable("away"), Unavailable("away"), 2), told.append)
    assert [next(found), next(found)] == [1, 2]
    assert told == ["waiting for the server: away"] * 2


def test_one_that_stays_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "AWAY_S", 0.0)
    read = reading(1, *[Unavailable("away")] * 9)
    with pytest.raises(Unavailable, match="away"):
        list(looks(60, read, ignore))


def test_one_that_is_away_when_the_time_is_over_raises_its_error() -> None:
    read = reading(Unavailable("away"))
    with pytest.raises(Unavailable, match="away"):
        list(looks(0, read, ignore))


def test_other_errors_are_raised_at_once() -> None:
    read = reading(NotFound("no such version"))
    with pytest.raises(NotFound):
        next(looks(60, read, ignore))
