"""A short part of ``make fuzz``, and what it has found."""

import pytest

from tests.worker.frontend.fuzz_front import TRIES

# Numbers of tries that found something, by kind.
KEPT: dict[str, list[int]] = {"predict body": [540419972820], "call": [1046054], "http2": [5011931]}


# Their applications are stand-ins, which compiled code does not take.
OF_STAND_INS = {"infer", "call", "http2"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.pure if kind in OF_STAND_INS else ()) for kind in TRIES]
)
def test_tries_of_each_kind(kind: str) -> None:
    for number in [*KEPT.get(kind, ()), *range(700)]:
        TRIES[kind](number)
