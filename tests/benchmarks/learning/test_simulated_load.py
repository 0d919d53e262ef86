"""What users get of policies over models that can be full, in virtual time, beside what is possible."""

import pytest

from benchmarks.learning.simulated_load import GOOD, QUICK, Application, Counted, Model, possible

TWO = (GOOD, QUICK)
FIVE = tuple(
    Model(name, row_s, quality)
    for name, row_s, quality in (
        ("a", 0.02, 0.97),
        ("b", 0.01, 0.93),
        ("c", 0.005, 0.88),
        ("d", 0.002, 0.8),
        ("e", 0.0005, 0.7),
    )
)
POLICIES = ("single", "adaptive", "thompson", "exp3", "epsilon_greedy", "ucb1", "exp4", "cascade")
END_S = 12.0


def late(application: Application, per_s: float) -> Counted:
    """The last two thirds of a run at one rate."""
    return sum(application.run(lambda at_s: per_s, END_S)[1:], Counted())


def test_what_is_possible_fills_the_best_models_first() -> None:
    assert possible(TWO, 50) == pytest.approx(0.98)
    assert possible(TWO, 200) == pytest.approx(0.89)
    assert possible(TWO, 400) == pytest.approx(0.845)


@pytest.mark.parametrize("per_s", [25, 90, 200, 400])
@pytest.mark.parametrize("policy", POLICIES)
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


@pytest.mark.parametrize("label_share", [0.1, 0.0])
@pytest.mark.parametrize("policy", ["single", "adaptive"])
def test_few_labels_or_none_are_enough_to_use_each_model(policy: str, label_share: float) -> None:
    assert late(Application(policy, TWO, label_share=label_share), 200).share >= 0.95 * possible(TWO, 200)


@pytest.mark.parametrize("policy", ["single", "adaptive", "thompson"])
def test_a_model_that_is_slow_for_a_while_is_passed_over_and_found_again(policy: str) -> None:
    slow = Model("a", 0.010, 0.98, slowness=lambda at_s: 10.0 if 4 <= at_s < 8 else 1.0)
    counted = Application(policy, (slow, QUICK)).run(lambda at_s: 90.0, END_S)
    assert sum(counted, Counted()).default_share < 0.02
    assert counted[1].share >= 0.85 * 0.8 and counted[2].share >= 0.93


@pytest.mark.parametrize("per_s", [25, 100, 400])
def test_of_five_models_each_gets_what_it_can_answer(per_s: float) -> None:
    counted = late(Application("adaptive", FIVE), per_s)
    assert counted.share >= 0.93 * possible(FIVE, per_s) and counted.default_share < 0.02
