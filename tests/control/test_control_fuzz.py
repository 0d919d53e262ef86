"""A short part of ``make fuzz``, and what it has found."""

import pytest

from tests.fuzz_control import TRIES

# Numbers of tries that found something, by kind.
KEPT: dict[str, list[int]] = {}


@pytest.mark.parametrize("kind", TRIES)
def test_tries_of_each_kind(kind: str) -> None:
    for number in [*KEPT.get(kind, ()), *range(1000, 1040)]:
        TRIES[kind](number)
