"""A short part of ``make fuzz`` that takes processes, and what it has found."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.fuzz_artifacts import serving, uploading
from tests.fuzz_containers import lying
from tests.fuzz_schema import check_answers

pytestmark = pytest.mark.alone

# Numbers of tries that found something, by kind.
KEPT: dict[str, list[int]] = {"call": [1594]}
COUNTS = {"container": 120, "call": 400, "tar": 100, "model file": 3}


@pytest.mark.parametrize("context", [lying, uploading])
def test_tries_of_each_kind(
    context: Callable[[], AbstractContextManager[tuple[dict[str, Callable[[int], None]], Callable[[], None]]]],
) -> None:
    with context() as (tries, check):
        for kind, attempt in tries.items():
            for number in [*KEPT.get(kind, ()), *range(1000, 1000 + COUNTS[kind])]:
                attempt(number)
        check()


def test_the_management_api_answers_as_it_says() -> None:
    with serving() as server:
        assert "passed" in check_answers(server, examples=1)
