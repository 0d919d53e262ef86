"""Policies over models that can be full, in virtual time: their answers beside the best possible ones."""

from collections.abc import Sequence

import pytest

from benchmarks.learning.load_cells import (
    FIVE,
    LABELS,
    POLICIES,
    SHAPES,
    SHARED,
    TWO,
    Cell,
    best_share,
    cells,
    online_share,
    play,
)
from benchmarks.learning.simulated_load import Application, Counted, Model, possible

ALL_POLICIES = ("single", "adaptive", "thompson", "exp3", "epsilon_greedy", "ucb1", "exp4", "cascade")
END_S = 12.0


def named(cell: Cell) -> str:
    return f"{cell.models}, {cell.shape}, labels {cell.labels:g}, {cell.policy}"


def late(application: Application, per_s: float) -> Counted:
    """The last two thirds of a run at one rate."""
    return sum(application.run(lambda at_s: per_s, END_S)[1:], Counted())


def test_what_is_possible_fills_the_best_models_first() -> None:
    assert possible(TWO, 50) == pytest.approx(0.98)
    assert possible(TWO, 200) == pytest.approx(0.89)
    assert possible(TWO, 400) == pytest.approx(0.845)


@pytest.mark.parametrize("per_s", [25, 90, 200, 400])
@pytest.mark.parametrize("policy", ALL_POLICIES)
def test_users_get_nearly_all_that_is_possible(policy: str, per_s: float) -> None:
    counted = late(Application(policy, TWO), per_s)
    # Four standard deviations of chance beside what is lost.
    chance = 4 * (possible(TWO, per_s) * (1 - possible(TWO, per_s)) / counted.queries) ** 0.5
    assert counted.share >= 0.97 * possible(TWO, per_s) - chance
    assert counted.default_share < 0.01


@pytest.mark.parametrize("policy", ["single", "thompson", "exp3"])
def test_by_losses_alone_they_got_far_less(policy: str) -> None:
    counted = late(Application(policy, TWO, weighs_time=False), 200)
    assert counted.share < 0.94 * possible(TWO, 200) and counted.default_share > 0.05


# Of each kind of load, one that the suite can afford; all of them take minutes.
QUICK_CELLS = (
    Cell("two", "0.5x", 0.0, "adaptive", 2000),
    Cell("two", "2x", 0.1, "adaptive", 3000),
    Cell("two", "bursts", 1.0, "adaptive", 3000),
    Cell("two", "one dies", 1.0, "adaptive", 3000),
    Cell("two", "slow", 0.0, "single", 3000),
    Cell("five", "4x", 0.0, "single", 3000),
    Cell("five", "4x", 1.0, "adaptive", 2000),
    Cell("five", "step", 1.0, "adaptive", 3000),
    Cell("five", "all die", 0.0, "single", 3000),
    Cell("shared", "2x", 1.0, "adaptive", 3000),
    Cell("shared", "bursts", 1.0, "adaptive"),
    Cell("shared", "4x", 0.0, "single", 3000),
)


@pytest.mark.long
@pytest.mark.parametrize("cell", QUICK_CELLS, ids=named)
def test_users_get_what_is_wanted_in_each_kind_of_load(cell: Cell) -> None:
    found = play(cell)
    assert found.is_as_wanted(cell), found


@pytest.mark.long
@pytest.mark.parametrize("cell", cells(("two", "five"), tuple(SHAPES), LABELS, POLICIES), ids=named)
def test_users_get_what_is_wanted_in_all_loads(cell: Cell) -> None:
    found = play(cell)
    assert found.is_as_wanted(cell), found


def test_the_program_mixes_models_that_share_an_accelerator() -> None:
    # At 100/s there are 10 ms for each: b, which needs just that. With 7.5 ms half of b and half of c.
    assert best_share(100, supply(SHARED)) == pytest.approx(0.93)
    assert best_share(1 / 0.0075, supply(SHARED)) == pytest.approx((0.93 + 0.88) / 2)
    # Those with accelerators of their own: the best first.
    assert best_share(100, supply(FIVE)) == pytest.approx((0.97 + 0.93) / 2)
    assert best_share(200, supply(TWO)) == pytest.approx(possible(TWO, 200))


def test_without_foreknowledge_hardly_less_is_possible() -> None:
    assert online_share(SHARED, 5) == pytest.approx(0.97, abs=0.0005), "an accelerator with time for all"
    # With one model that takes all of the SLO, a query is answered if no other one was within the SLO before its end:
    # Erlang's loss formula.
    alone = (Model("a", 0.1, 1.0, device="gpu"),)
    assert online_share(alone, 10) == pytest.approx(1 / 2, abs=0.01)
    assert 0.985 < online_share(SHARED, 50) / best_share(50, supply(SHARED)) < 0.995


def supply(models: Sequence[Model]) -> tuple[tuple[str, float, float, int], ...]:
    return tuple((model.device or model.name, model.per_row_s, model.quality, 1) for model in models)
