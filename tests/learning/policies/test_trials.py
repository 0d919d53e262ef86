"""Whether newcomers that fail more are stopped, and others are not, in simulated worlds."""

from collections.abc import Callable
from random import Random
from statistics import median

import pytest

from clipper.learning.mathematics.guardrail import NO_LOSSES, Losses
from clipper.learning.policies.policy import Choice, Step
from clipper.learning.policies.trials import (
    COMPARED,
    ENOUGH_ANSWERS,
    FIRST_OPEN,
    MOST_ANSWERS,
    WARM_UP_S,
    Evidence,
    Trial,
    Trials,
    Tried,
    evidence_of,
    fails_more,
    is_over,
)

pytestmark = pytest.mark.long

RATES = Callable[[int], tuple[float, float]]  # of a query's number: how often the newcomer and the version before fail
WATCHED, RAMPED = Tried(1, "m:1", is_watched=True), Tried(1, "m", is_watched=False)
ALLOWED = 0.05
CHOICE = Choice(("m",), (1.0,))


def play(
    rates: RATES, queries: int, random: Random, *, allowed: float = ALLOWED, delay: int = 0
) -> tuple[int, int] | None:
    """Ask one query after another until the newcomer is stopped; the supervisor looks after each.

    Args:
        delay: how many queries come before a query ends.

    Returns:
        The number of queries, and how many of the newcomer's failed; None if it was not stopped.
    """
    trials = Trials()
    trials.follow({"m": WATCHED}, allowed)
    hurt, waiting = 0, []
    for number in range(queries):
        (model,) = trials.assigned(number, CHOICE, random).models
        newcomer, before = rates(number)
        fails = random.random() < (newcomer if model == "m" else before)
        hurt += fails and model == "m"
        waiting.append((number, model, fails))
        if len(waiting) > delay:
            ended, asked, failed = waiting.pop(0)
            trials.ended(ended, (asked,), (asked,) if failed else (), "it raised" if failed else "", float(ended))
            evidence = evidence_of(trials.readings())
            if failed and fails_more(evidence.newcomer, evidence.rest, allowed):
                return number + 1, hurt
    return None


def an_outage(begins: int, ends: int) -> RATES:
    return lambda number: (1.0, 1.0) if begins <= number < ends else (0.0, 0.0)


@pytest.mark.parametrize(
    ("rates", "delay"),
    [
        (lambda number: (0.05, 0.05), 0),
        (lambda number: (0.3, 0.3), 10),
        (lambda number: (1.0, 1.0), 0),
        (an_outage(0, 10), 0),
        (an_outage(0, 40), 10),
        (lambda number: (float(number % 60 < 12),) * 2, 10),
    ],
)
def test_a_newcomer_that_fails_as_often_is_seldom_stopped(rates: RATES, delay: int) -> None:
    """In at most 5 % of 1,000 runs, without any increase that is allowed, however rates change meanwhile."""
    random = Random(7)
    stopped = sum(play(rates, 150, random, allowed=0.0, delay=delay) is not None for _ in range(1000))
    assert stopped <= 50


@pytest.mark.parametrize(
    ("rates", "queries", "hurt"),
    [((1.0, 0.0), 30, 16), ((1.0, 0.05), 36, 20), ((0.5, 0.0), 140, 35), ((0.2, 0.0), 700, 80)],
)
def test_a_newcomer_that_fails_is_stopped_within_a_few_dozen_queries(
    rates: tuple[float, float], queries: int, hurt: int
) -> None:
    random = Random(7)
    found = [play(lambda _: rates, 5000, random) for _ in range(100)]
    stopped = [one for one in found if one is not None]
    assert len(stopped) == 100
    assert median(one[0] for one in stopped) <= queries and median(one[1] for one in stopped) <= hurt


def test_a_worker_asks_one_that_fails_seldom_whatever_the_supervisor_does() -> None:
    trials, random = Trials(), Random(7)
    trials.follow({"m": WATCHED}, ALLOWED)
    failed = 0
    for number in range(1000):
        (model,) = trials.assigned(number, CHOICE, random).models
        trials.ended(number, (model,), ("m",) if model == "m" else (), "it raised", 0.0)
        failed += model == "m"
    assert failed < 60
    (reading,) = trials.readings()
    assert reading.last_error == "it raised" and reading.answers == 0, "it is not warm"


def test_one_that_hangs_makes_few_queries_late() -> None:
    trials, random = Trials(), Random(7)
    trials.follow({"m": WATCHED}, ALLOWED)
    asked = [trials.assigned(number, CHOICE, random).models[0] for number in range(1000)]
    assert asked[:FIRST_OPEN] == ["m"] * FIRST_OPEN and asked.count("m") < FIRST_OPEN + 60
    # As answers come there is room for more.
    for number in range(FIRST_OPEN):
        trials.ended(number, ("m",), (), "", 0.0)
    assert [trials.assigned(number, CHOICE, random).models[0] for number in range(1000, 1020)].count("m") > 0


def test_a_newcomer_without_failures_gets_all_queries() -> None:
    trials, random = Trials(), Random(7)
    trials.follow({"m": WATCHED}, ALLOWED)
    both = Choice(("n", "m"), (0.5, 0.5))
    for number in range(500):
        assert trials.assigned(number, both, random) is both
        trials.ended(number, ("n", "m"), (), "", WARM_UP_S * (number > 0))
    (reading,) = trials.readings()
    assert (reading.answers, reading.newcomer, reading.rest) == (499, (0, 0, 0), (0, 0, 0))


def test_a_newcomer_may_be_late_while_it_warms_up() -> None:
    trials, random = Trials(), Random(7)
    trials.follow({"m": WATCHED}, ALLOWED)

    def late(first: int, at_s: float) -> Losses:
        """Its failures once 200 more queries have come, all of its own late."""
        for number in range(first, first + 200):
            (model,) = trials.assigned(number, CHOICE, random).models
            missing = ("m",) if model == "m" else ()
            trials.ended(number, (model,), missing, "it did not answer within the SLO", at_s, late=missing)
        return evidence_of(trials.readings()).newcomer

    assert late(0, 100.0).count == late(200, 100.0 + WARM_UP_S - 0.1).count == 0
    found = late(400, 100.0 + WARM_UP_S)
    assert found.count > 0 and found.mean == 1.0
    evidence = evidence_of(trials.readings())
    assert fails_more(evidence.newcomer, evidence.rest, ALLOWED)
    # An error that the newcomer raises counts at once.
    cold = Trial()
    cold.asks_newcomer(0, random)
    cold.ended(0, 1.0, "it raised", ALLOWED, 0.0, is_late=False, is_watched=False)
    assert cold.reading(1).newcomer[:2] == (1, 1)


def test_a_comparison_ends_after_queries_without_a_failure() -> None:
    trial, random = Trial(), Random(7)
    assert trial.asks_newcomer(0, random) == (True, 1.0)
    trial.ended(0, 1.0, "it raised", ALLOWED, 0.0, is_late=False, is_watched=True)
    drawn = [trial.asks_newcomer(number, random) for number in range(1, COMPARED + 1)]
    assert {probability for _, probability in drawn} == {0.5}
    asked = [is_newcomer for is_newcomer, _ in drawn]
    assert 4 < asked.count(False) < COMPARED - 4
    for number, is_newcomer in enumerate(asked, 1):
        if is_newcomer:
            trial.ended(number, 0.0, "", ALLOWED, 0.0, is_late=False, is_watched=True)
        else:
            trial.rest_ended(number, 0.0, is_watched=True)
    assert all(trial.asks_newcomer(number, random)[0] for number in range(100, 110))
    reading = trial.reading(1)
    assert reading.newcomer[:2] == (asked.count(True), 0), "what began the comparison is not chance"
    assert reading.rest[0] == asked.count(False)


def test_of_a_ramped_newcomer_all_queries_count() -> None:
    trials = Trials()
    trials.follow({"m:2": RAMPED, "n:1": Tried(2, None, is_watched=False)}, ALLOWED)
    trials.ended(1, ("m:2",), ("m:2",), "it raised", 0.0)
    trials.ended(2, ("m",), (), "", 0.0)
    trials.ended(3, ("m", "o"), ("o",), "", 0.0)
    trials.ended(4, ("n:1",), (), "", 0.0)
    first, second = trials.readings()
    assert (first.ramp, first.newcomer[:2], first.rest[:2]) == (1, (1, 1), (2, 0))
    assert (second.ramp, second.newcomer[:2], second.rest[:2]) == (2, (1, 0), (3, 1.5))
    trials.follow({"n:1": Tried(2, None, is_watched=False)}, ALLOWED)
    assert [one.ramp for one in trials.readings()] == [2] and trials.readings()[0] == second


def losses(count: int, failed: int) -> Losses:
    """With the spread that forecasts by the mean so far leave, failures last."""
    trial = Trial()
    for number in range(count):
        trial.rest_ended(number, float(number >= count - failed), is_watched=False)
    return Losses(*trial.reading(1).rest)


def test_without_others_a_newcomer_has_to_answer_half() -> None:
    assert fails_more(losses(30, 30), NO_LOSSES, ALLOWED) and not fails_more(losses(30, 15), NO_LOSSES, ALLOWED)
    assert not fails_more(NO_LOSSES, NO_LOSSES, ALLOWED)


def test_no_guardrail_stops_nothing() -> None:
    assert fails_more(losses(50, 50), losses(50, 0), ALLOWED)
    assert not fails_more(losses(50, 50), losses(50, 0), None)


@pytest.mark.parametrize(
    ("answers", "newcomer", "over"),
    [
        (ENOUGH_ANSWERS - 1, (0, 0), False),
        (ENOUGH_ANSWERS, (0, 0), True),
        (ENOUGH_ANSWERS, (50, 2), True),
        (ENOUGH_ANSWERS, (50, 5), False),  # more than allowed, and not certainly so
        (MOST_ANSWERS, (50, 5), True),
    ],
)
def test_a_watch_ends_after_enough_answers(answers: int, newcomer: tuple[int, int], over: bool) -> None:
    evidence = Evidence(losses(*newcomer), losses(newcomer[0], 0), answers, "")
    assert is_over(evidence, ALLOWED) == over
    assert is_over(evidence, None) == (answers >= ENOUGH_ANSWERS)


def test_a_choice_says_with_which_probability_it_was_made() -> None:
    trials, random = Trials(), Random(7)
    trials.follow({"m": WATCHED}, ALLOWED)
    chosen = Choice(("m",), (0.8,))
    assert trials.assigned(0, chosen, random) is chosen
    trials.ended(0, ("m",), ("m",), "it raised", 0.0)
    drawn = {trials.assigned(number, chosen, random) for number in range(1, COMPARED)}
    assert drawn == {Choice(("m",), (0.4,)), Choice(("m:1",), (0.4,))}
    trials.ended(1, ("m",), ("m",), "it raised", 0.0)
    joint = {trials.assigned(number, Choice(("m", "n"), (0.8, 0.2)), random) for number in range(100, 100 + COMPARED)}
    assert joint == {Choice(("m", "n"), (0.8, 0.2)), Choice(("m:1", "n"), (0.8, 0.2))}


@pytest.fixture
def compared() -> Trials:
    """The watched m has failed once, so its queries are compared."""
    trials = Trials()
    trials.follow({"m": WATCHED}, ALLOWED)
    trials.ended(0, ("m",), ("m",), "it raised", 0.0)
    return trials


def test_a_choice_by_beliefs_says_where_they_were_drawn(compared: Trials) -> None:
    random, beliefs = Random(7), ((2.0, 1.0), (1.0, 3.0))
    drawn = {
        compared.assigned(number, Choice(("m",), (1.0,), beliefs, ("n", "m")), random) for number in range(1, COMPARED)
    }
    newcomers = Choice(("m",), (0.5,), beliefs, ("n", "m"))
    assert drawn == {newcomers, Choice(("m:1",), (0.5,), beliefs, ("n", "m:1"))}
    # A user's own policy does not say among which models, and a test of all models is not about the version before.
    for choice in (Choice(("m",), (1.0,), beliefs), Choice(("m",), (1.0,), among=("n", "m"))):
        compared.ended(1, ("m",), ("m",), "it raised", 0.0)
        drawn = {compared.assigned(number, choice, random) for number in range(100, 100 + COMPARED)}
        assert Choice(("m:1",), (0.5,), choice.beliefs) in drawn and len(drawn) == 2


def test_of_a_further_choice_only_what_it_adds_is_drawn(compared: Trials) -> None:
    steps = (Step(1, 0.4, 1.0),)
    further = {
        compared.assigned(number, Choice(("n", "m"), (0.0, 1.0), steps=steps), Random(number), 1)
        for number in range(1, COMPARED)
    }
    assert further == {Choice(("n", model), (0.0, 1.0), steps=steps) for model in ("m", "m:1")}
    first = Choice(("m", "n"), (0.0, 1.0), steps=steps)
    assert compared.assigned(1, first, Random(1), 1) is first


def test_a_version_before_that_is_asked_anyway_takes_no_place(compared: Trials) -> None:
    both = Choice(("m:1", "m"), (0.5, 0.5))
    assert {compared.assigned(number, both, Random(number)) for number in range(1, COMPARED)} == {both}
