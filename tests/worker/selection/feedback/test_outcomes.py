"""Misses teach, with feedback on all queries, on few, and on none that was missed."""

from collections.abc import Callable
from random import Random

import pytest

from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import make_policy
from clipper.learning.policies.policy import Choice, JudgedQuery, Policy, QueryView
from clipper.worker.selection.feedback.outcomes import MAX_MADE_UP, WINDOW, Outcomes, mixed
from clipper.worker.selection.feedback.scoring import lesson

MODELS = ("slow", "fast")
ERRORS = {"slow": 0.02, "fast": 0.2}
ARMS = Arms({name: ((f"{name}:1", 1.0),) for name in MODELS})
SLOW = Choice(("slow",), (1.0,))

BANDITS = ["epsilon_greedy", "exp3", "thompson", "ucb1"]


class Simulation:
    """Queries, one after another, to an application without a default; its feedback comes at once."""

    def __init__(self, policy: Policy, has_feedback: Callable[[bool], bool], late_share: float = 1.0) -> None:
        self.policy = policy
        self.has_feedback = has_feedback
        self.late_share = late_share
        self.ledger = Ledger(1000)
        self.outcomes = Outcomes()
        self.random = Random(1)
        self.asked: list[str] = []
        self.taught_misses = 0

    def ask(self, times: int) -> None:
        for _ in range(times):
            totals = ARMS.view(self.ledger.totals())
            choice = self.policy.select(MODELS, totals, QueryView(), self.random)
            name = choice.models[0]
            self.asked.append(name)
            is_missed = name == "slow" and self.random.random() < self.late_share
            if is_missed:
                self.outcomes.missed(name, choice, ARMS)
            else:
                self.outcomes.came(ARMS.key(name))
                self.outcomes.answers += 1
            if self.has_feedback(is_missed):
                self._learn(name, choice, is_missed=is_missed)
            if len(self.asked) % 20 == 0:
                self._make_up()

    def _learn(self, name: str, choice: Choice, *, is_missed: bool) -> None:
        totals = ARMS.view(self.ledger.totals())
        loss = 1.0 if is_missed else float(self.random.random() < ERRORS[name])
        increments = ARMS.keyed(lesson(self.policy, choice, {name: loss}, totals, JudgedQuery()))
        if is_missed:
            self.outcomes.told_of_miss(ARMS.key(name))
            self.taught_misses += 1
        else:
            self.outcomes.told_of_answer()
        self.ledger.add(self.ledger.entries(increments))

    def _make_up(self) -> None:
        totals = ARMS.view(self.ledger.totals())
        for each in self.outcomes.make_up():
            taught = ARMS.keyed(lesson(self.policy, each.choice, {each.name: each.loss}, totals, JudgedQuery()))
            self.ledger.add(self.ledger.entries({key: each.times * amount for key, amount in taught.items()}))
            self.taught_misses += each.times

    def share_of(self, name: str, last: int) -> float:
        return self.asked[-last:].count(name) / last


@pytest.mark.parametrize("policy", BANDITS)
def test_a_version_that_is_right_and_never_in_time_is_left(policy: str) -> None:
    simulation = Simulation(make_policy(policy), lambda is_missed: True)
    simulation.ask(2000)
    assert simulation.share_of("fast", 1000) > 0.9


@pytest.mark.parametrize("policy", BANDITS)
@pytest.mark.parametrize("late_share", [1.0, 0.97])
def test_it_is_left_also_where_no_feedback_comes_on_what_was_missed(policy: str, late_share: float) -> None:
    simulation = Simulation(make_policy(policy), lambda is_missed: not is_missed, late_share)
    simulation.ask(4000)
    assert simulation.share_of("fast", 1000) > 0.85


def test_misses_teach_as_often_as_feedback_comes_and_not_more() -> None:
    chance = Random(2)
    for feedback_share in (0.01, 0.1, 1.0):
        even = make_policy("weighted")
        told = Simulation(even, lambda is_missed, share=feedback_share: chance.random() < share)  # type: ignore[misc]
        told.ask(20_000)
        misses = told.asked.count("slow")
        # Five standard deviations of how much feedback comes by chance; made up is hardly anything.
        assert abs(told.taught_misses - feedback_share * misses) < 5 * (feedback_share * misses) ** 0.5 + 1
        silent = Simulation(
            even,
            lambda is_missed, share=feedback_share: not is_missed and chance.random() < share,  # type: ignore[misc]
        )
        silent.ask(20_000)
        misses = silent.asked.count("slow")
        assert 0.6 * feedback_share * misses < silent.taught_misses < 1.25 * feedback_share * misses


def test_misses_are_made_up_for_once_and_few_at_a_time() -> None:
    outcomes = Outcomes()
    for _ in range(500):
        outcomes.came("fast:1")
        outcomes.answers += 1
        outcomes.told_of_answer()
        outcomes.missed("slow", SLOW, ARMS)
    times = []
    while made_up := outcomes.make_up():
        times.append(made_up[0].times)
    assert max(times) == MAX_MADE_UP and sum(times) == 500


def test_without_a_miss_there_is_nothing_to_make_up() -> None:
    outcomes = Outcomes()
    outcomes.came("fast:1")
    assert not outcomes.have_misses and outcomes.make_up() == []
    outcomes.missed("slow", SLOW, ARMS)
    assert outcomes.have_misses


def test_what_was_not_learned_is_made_up_for_again() -> None:
    outcomes = Outcomes()
    for _ in range(50):
        outcomes.answers += 1
        outcomes.told_of_answer()
        outcomes.missed("slow", SLOW, ARMS)
    made_up = outcomes.make_up()
    assert [(each.name, each.times) for each in made_up] == [("slow", 50)]
    assert outcomes.make_up() == []
    outcomes.take_back(made_up)
    assert outcomes.make_up() == made_up


def test_without_feedback_on_answers_nothing_is_made_up() -> None:
    outcomes = Outcomes()
    for _ in range(500):
        outcomes.answers += 1
        outcomes.missed("slow", SLOW, ARMS)
    assert outcomes.make_up() == []


def test_where_nothing_is_answered_misses_teach_of_themselves() -> None:
    outcomes = Outcomes()
    for _ in range(9):
        outcomes.missed("slow", SLOW, ARMS)
    assert [(each.name, each.times, each.loss) for each in outcomes.make_up()] == [("slow", 9, 1.0)]


def test_a_miss_without_feedback_costs_what_the_default_does() -> None:
    outcomes = Outcomes()
    for loss in (0.0, 0.0, 1.0, 0.0):
        outcomes.told_of_default(loss)
    for _ in range(9):
        outcomes.missed("slow", SLOW, ARMS)
    assert [each.loss for each in outcomes.make_up()] == [0.25]


def test_who_is_in_time_is_known_of_lately() -> None:
    outcomes = Outcomes()
    assert (outcomes.missed_share("slow:1"), outcomes.recent_share("slow:1")) == (0.0, 1.0)
    for _ in range(10):
        outcomes.missed("slow", SLOW, ARMS)
    assert outcomes.missed_share("slow:1") == 1.0 and outcomes.recent_share("slow:1") < 0.1
    for _ in range(10 * WINDOW):
        outcomes.came("slow:1")
    assert outcomes.missed_share("slow:1") < 0.01 and outcomes.recent_share("slow:1") > 0.99
    for _ in range(60):
        outcomes.missed("slow", SLOW, ARMS)
    assert outcomes.recent_share("slow:1") < 0.1, "a version that begins to hang is known after some tens of queries"


def test_versions_that_are_asked_no_more_are_forgotten() -> None:
    outcomes = Outcomes()
    for number in range(30):
        for _ in range(WINDOW):
            outcomes.came(f"m:{number}")
    assert len(outcomes._versions) < 20


def test_outputs_that_nobody_awaited_count_by_how_often_they_are_in_time() -> None:
    assert mixed({"a": 0.0, "b": 0.2, "c": 1.0}, {"a": 0.25, "b": 1.0}, 0.8) == pytest.approx(
        {"a": 0.2, "b": 0.8, "c": 1.0}
    )
