"""The error of a test that waits for something that does not come."""

import asyncio
import time
from itertools import count

import pytest

from tests.waiting import until, until_async


def message(*arguments: object, **options: object) -> str:
    with pytest.raises(AssertionError) as found:
        until(*arguments, **options)  # type: ignore[arg-type]
    return str(found.value)


def test_what_the_condition_gives_is_returned() -> None:
    numbers = count()
    assert until(lambda: next(numbers) >= 3 and "there") == "there"
    assert next(numbers) == 4
    assert asyncio.run(until_async(lambda: next(numbers) > 6)) is True


def test_the_condition_and_its_last_values_are_in_the_message() -> None:
    pids, home = [7], "here"
    assert message(lambda: len(pids) == 2 and home, timeout_s=0.02) == (
        "not within 0.02 s: len(pids) == 2 and home\nwhich gave: False\nlen(pids): 1\npids: [7]\nhome: here"
    )
    # Of two on one line, that which waited.
    either = [lambda: pids == [8], lambda: not home.startswith("h")]
    assert "not home.startswith('h')\nwhich gave: False\nhome.startswith('h'): True" in message(either[1], timeout_s=0)
    assert "pids == [8]" in message(either[0], timeout_s=0)
    assert "\nnone: None" in message(lambda none=None: none is not None, timeout_s=0)

    def arrives() -> list[int]:
        return []

    assert message(arrives, timeout_s=0).endswith("arrives\nwhich gave: []")


def test_a_part_that_raises_on_a_second_look_does_not_hide_the_message() -> None:
    left = [0]
    found = message(lambda: left.pop() == 1, timeout_s=0)
    assert "left.pop() == 1\nwhich gave: False\nleft.pop() raises IndexError" in found


def test_a_wait_ends_when_there_is_nothing_left_to_wait_for() -> None:
    began_s = time.monotonic()
    looks = count()
    found = message(lambda: next(looks) < 0, failed=lambda: next(looks) > 10 and "the process ended: bad option")
    assert found.startswith("no longer to be expected: next(looks) < 0\nwhich gave: False")
    assert found.endswith("for: the process ended: bad option")
    assert time.monotonic() - began_s < 30

    async def wait() -> None:
        await until_async(lambda: False, failed=lambda: "gone")

    with pytest.raises(AssertionError, match="for: gone"):
        asyncio.run(wait())


def test_what_came_true_before_the_failure_counts() -> None:
    seen: list[str] = []

    def ended() -> bool:
        seen.append("its result")
        return True

    assert until(lambda: list(seen), failed=ended) == ["its result"]


def test_an_error_of_the_condition_is_not_waited_out() -> None:
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 / 0)


def test_of_a_long_log_the_end_is_shown() -> None:
    found = message(lambda: False, failed=lambda: "start" + "." * 10_000 + "the end")
    assert found.endswith("the end") and "start" not in found
