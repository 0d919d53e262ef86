"""The search for the highest rate, against servers that are only a number."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.load.sweep import MAX_PER_S, MIN_PER_S, PRECISION, TRIES, Sweep, Verdict

Server = Callable[[float], Verdict]


def search(first_per_s: float, server: Server) -> tuple[Sweep, list[float]]:
    sweep, tried = Sweep(first_per_s), []
    while (rate_per_s := sweep.next_per_s) is not None:
        tried.append(rate_per_s)
        assert len(tried) < 100
        sweep.tell(server(rate_per_s))
    return sweep, tried


def up_to(limit_per_s: float, above: Verdict = Verdict.BROKEN) -> Server:
    return lambda rate_per_s: Verdict.KEPT if rate_per_s <= limit_per_s else above


@given(st.floats(0.1, 2e6), st.floats(MIN_PER_S * 1.01, MAX_PER_S * 0.99))
def test_it_finds_what_the_server_can_do(first_per_s: float, limit_per_s: float) -> None:
    sweep, tried = search(first_per_s, up_to(limit_per_s))
    assert sweep.kept_per_s is not None
    assert limit_per_s / PRECISION <= sweep.kept_per_s <= limit_per_s
    assert sweep.too_high_per_s is not None and sweep.too_high_per_s > limit_per_s
    assert all(MIN_PER_S <= rate_per_s <= MAX_PER_S for rate_per_s in tried)
    # Twenty doublings from 1 to a hundred thousand, and halvings of one of them to 5 %, each twice at most.
    assert len(tried) <= 2 * (17 + 5)


@given(st.floats(1, 1e5), st.floats(10, 9e4), st.integers(0, 40))
def test_one_run_that_breaks_by_chance_changes_nothing(first_per_s: float, limit_per_s: float, unlucky: int) -> None:
    runs = iter(range(10_000))
    server = up_to(limit_per_s)
    disturbed, _ = search(first_per_s, lambda rate: Verdict.BROKEN if next(runs) == unlucky else server(rate))
    undisturbed, _ = search(first_per_s, server)
    assert disturbed.kept_per_s == undisturbed.kept_per_s


def test_a_rate_that_breaks_is_tried_again_before_it_counts() -> None:
    _, tried = search(100, up_to(100))
    assert tried[:3] == [100, 200, 200] and TRIES == 2


def test_a_server_that_keeps_every_rate() -> None:
    sweep, tried = search(100, up_to(float("inf")))
    assert (sweep.kept_per_s, sweep.too_high_per_s) == (MAX_PER_S, None)
    assert len(tried) < 20


def test_a_server_that_keeps_none() -> None:
    sweep, _ = search(100, up_to(0))
    assert (sweep.kept_per_s, sweep.too_high_per_s) == (None, MIN_PER_S)


@pytest.mark.parametrize("above", [Verdict.BROKEN, Verdict.SENDER_TOO_SLOW])
def test_who_the_limit_is_of(above: Verdict) -> None:
    sweep, _ = search(100, up_to(900, above))
    assert sweep.limited_by_sender == (above is Verdict.SENDER_TOO_SLOW)


def test_nothing_can_be_told_after_the_end() -> None:
    sweep, _ = search(100, up_to(0))
    with pytest.raises(ValueError, match="has ended"):
        sweep.tell(Verdict.KEPT)
