import math
from collections import Counter
from itertools import product
from random import Random

import pytest

from clipper.learning.mathematics.guardrail import (
    ENOUGH_FEEDBACK,
    FALSE_ALARMS,
    NO_LOSSES,
    Forecasts,
    Losses,
    RampLosses,
    bound,
    judge,
    keys_of,
    ramp_losses,
)
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals


class Seen:
    """The evidence of a ramp, as the sums of what its answers add."""

    def __init__(self) -> None:
        self.ledger, self.forecasts = Ledger(), Forecasts()

    def add(self, loss: float, *, is_own: bool, times: int = 1, matters: bool = True) -> None:
        increments = self.forecasts.observed("m:2", 7, loss, is_own=is_own, times=times, matters=matters)
        self.ledger.add(self.ledger.entries(increments))

    @property
    def evidence(self) -> RampLosses:
        return ramp_losses(self.ledger.totals(), "m:2", 7)


def test_evidence_is_sums_that_do_not_fade_and_of_one_ramp() -> None:
    seen = Seen()
    for _ in range(20_000):  # twenty half-lives
        seen.add(0.25, is_own=False)
    seen.add(1.0, is_own=True, times=3)
    evidence = seen.evidence
    assert evidence.rest.count == 20_000 and evidence.rest.mean == pytest.approx(0.25)
    # Forecasts begin at a half, and are off by 1 / 4n at the n-th.
    assert evidence.rest.spread == pytest.approx(0.25**2 * math.pi**2 / 6, rel=1e-3)
    assert (evidence.newcomer.count, evidence.newcomer.loss) == (3.0, 3.0)
    assert evidence.newcomer.spread == pytest.approx(1 / 4 + 1 / 16 + 1 / 36), "one after another"
    assert ramp_losses(seen.ledger.totals(), "m:2", 8) == RampLosses(NO_LOSSES, NO_LOSSES)


def test_forecasts_are_of_ramps_that_go_on() -> None:
    forecasts = Forecasts()
    for _ in range(9):
        forecasts.observed("m:2", 7, 1.0, is_own=True)
    assert sum(forecasts.observed("m:2", 7, 1.0, is_own=True).values()) == pytest.approx(2.0 + 0.05**2)
    forecasts.keep({7, 8})
    assert sum(forecasts.observed("m:2", 7, 1.0, is_own=True).values()) < 2.0 + 0.05**2
    forecasts.keep({8})
    assert sum(forecasts.observed("m:2", 7, 1.0, is_own=True).values()) == 2.0 + 0.5**2


def test_the_keys_of_a_ramp_are_all_that_it_left_in_a_store() -> None:
    seen = Seen()
    for is_own, matters in product((True, False), repeat=2):
        seen.add(1.0, is_own=is_own, matters=matters)
    left = [key for key in seen.ledger.sums() if "ramp" in key]
    assert sorted(left) == sorted(keys_of("m:2", 7)) and len(left) == 12


@pytest.mark.parametrize("spread", [0.0, 0.3, 10.0, 400.0, 1e6])
@pytest.mark.parametrize("false_alarms", [0.04, 0.01])
def test_the_bound_is_where_the_mixture_reaches_the_inverse_of_the_rate(spread: float, false_alarms: float) -> None:
    def mixture(reached: float) -> float:
        rates = [0.9 * 2.0**-k for k in range(16)]
        terms = [
            math.exp(rate * reached + (math.log(1 - rate) + rate) * spread) / ((k + 1) * (k + 2))
            for k, rate in enumerate(rates)
        ]
        return sum(terms)

    assert mixture(bound(spread, false_alarms)) == pytest.approx(1 / false_alarms, rel=1e-6)


def test_the_mixture_is_a_supermartingale() -> None:
    """One step of it, whatever came before: forecast and mean anywhere, the worst losses of that mean being 0 and 1."""
    for rate in (0.9, 0.45, 0.1):
        psi = -math.log(1 - rate) - rate
        for mean in (0.0, 0.01, 0.2, 0.5, 0.9, 1.0):
            for forecast in (0.0, 0.05, 0.3, 0.7, 1.0):
                for sign in (1, -1):
                    expected = sum(
                        chance * math.exp(sign * rate * (loss - mean) - psi * (loss - forecast) ** 2)
                        for loss, chance in ((1.0, mean), (0.0, 1 - mean))
                    )
                    assert expected <= 1 + 1e-12, (rate, mean, forecast, sign)


def test_enough_feedback_lets_through_what_is_not_worse_than_allowed() -> None:
    rest = Losses(5000.0, 1000.0, 800.0)

    def after(count: float, mean: float, allowed: float | None = 0.05) -> str | None:
        own = Losses(count, count * mean, count * mean * (1 - mean))
        return judge(RampLosses(own, rest), allowed, by_context=False)

    assert after(ENOUGH_FEEDBACK - 1, 0.2) is None
    assert after(ENOUGH_FEEDBACK, 0.2) == "through" and after(ENOUGH_FEEDBACK, 0.25) == "through"
    assert after(ENOUGH_FEEDBACK, 0.26) is None, "worse, but not for certain: it waits"
    assert after(ENOUGH_FEEDBACK, 0.26, None) == "through"
    # A newcomer that is surely better need not wait for enough feedback.
    assert after(15, 0.0) is None and after(30, 0.0) == "through" and after(30, 0.0, None) is None
    assert after(30, 1.0) == "stopped" and after(30, 1.0, None) is None and after(30, 1.0, 0.9) is None
    # With nothing to be compared to, it is not worse.
    assert judge(RampLosses(Losses(200.0, 200.0, 0.3), NO_LOSSES), 0.05, by_context=False) == "through"
    assert judge(RampLosses(NO_LOSSES, rest), 0.05, by_context=False) is None


def by_context(own: tuple[float, float], rest: tuple[float, float], aside: tuple[float, float]) -> RampLosses:
    """Answers and mean losses where the newcomer matters, of it and of 1,000 others; and its answers elsewhere, beside
    others that never err."""

    def losses(count: float, mean: float) -> Losses:
        return Losses(count, count * mean, count * mean * (1 - mean))

    return RampLosses(losses(*own), losses(*rest), losses(*aside), losses(1000, 0.0))


@pytest.mark.parametrize(
    ("own", "aside", "verdict"),
    [
        ((60, 0.05), (60, 0.8), "through"),  # certainly better where it will be asked
        ((12, 0.05), (60, 0.8), None),  # not certain yet, but ahead: it is not stopped for being bad elsewhere
        ((60, 0.95), (60, 0.0), "stopped"),  # harm where it will be asked
        ((12, 0.45), (60, 0.8), "stopped"),  # bad everywhere
        ((2, 0.0), (60, 0.8), "stopped"),  # it is asked there by chance alone
        ((0, 0.0), (60, 0.8), "stopped"),
        ((0, 0.0), (50, 0.8), None),  # the policy has not had the time to learn where it is good
        ((0, 0.0), (200, 0.04), "through"),  # not worse than allowed anywhere
        ((100, 0.35), (100, 0.02), "through"),  # enough feedback, not worse
        ((100, 0.44), (100, 0.02), "through"),
        ((100, 0.48), (100, 0.02), None),
    ],
)
def test_by_context_it_counts_how_good_a_newcomer_is_where_it_matters(
    own: tuple[float, float], aside: tuple[float, float], verdict: str | None
) -> None:
    assert judge(by_context(own, (1000, 0.4), aside), 0.05, by_context=True) == verdict


def test_all_answers_are_compared_until_the_newcomer_matters_to_some() -> None:
    evidence = by_context((0, 0.0), (1000, 0.4), (50, 0.3))
    assert evidence.is_by_context and evidence.compared == evidence.everywhere
    assert (evidence.everywhere.newcomer.count, evidence.everywhere.rest.count) == (50, 2000)
    assert judge(evidence, None, by_context=True) is None
    assert judge(by_context((1, 1.0), (9, 0.0), (199, 1.0)), None, by_context=True) == "through"


@pytest.mark.parametrize(("factor", "verdict"), [(0.99, None), (1.01, "stopped")])
@pytest.mark.parametrize("is_by_context", [False, True])
def test_a_ramp_is_stopped_where_both_means_are_off_as_rarely_as_is_said(
    is_by_context: bool, factor: float, verdict: str | None
) -> None:
    """Four fifths of the rate of false alarms are the newcomer's, one fifth is that of the rest.

    By context there are two tests, of all answers and of those to queries to which the newcomer matters. Each has half
    of the rate from the first answer on, when all of them are: so both together have no more than the other policies'.
    """
    rest, rate = Losses(5000.0, 1000.0, 800.0), FALSE_ALARMS / 2 if is_by_context else FALSE_ALARMS
    for count in (100.0, 40.0):  # before and after a fair trial
        margin = bound(20.0, 0.8 * rate) / count + bound(rest.spread, 0.2 * rate) / rest.count
        evidence = RampLosses(Losses(count, count * (0.25 + factor * margin), 20.0), rest)
        assert judge(evidence, 0.05, by_context=is_by_context) == verdict


def test_where_nothing_is_chosen_by_context_all_answers_are_compared() -> None:
    """Such as those to queries that name a version, whose asker has picked it."""
    assert judge(by_context((0, 0.0), (1000, 0.4), (12, 1.0)), 0.05, by_context=False) == "stopped"
    assert judge(by_context((0, 0.0), (1000, 0.4), (12, 1.0)), 0.05, by_context=True) is None


# The most that the newcomer may lose beyond the others.
ALLOWED = 0.05


def verdicts(own: float, rest: float, seeds: int, answers: int, *, drift: bool = False) -> Counter[str | None]:
    """The first verdicts on so many ramps, looked at after each answer of the newcomer's; these are too few to do."""
    found: Counter[str | None] = Counter()
    for seed in range(seeds):
        chance, forecasts, verdict = Random(seed), Forecasts(), None
        numbers: dict[tuple[str, str], float] = {}
        for step in range(answers * 5):
            is_own = chance.random() < 0.2
            worse = 0.4 * (step % 200 < 100) if drift else 0.0
            loss = float(chance.random() < (own if is_own else rest) + worse)
            for key, amount in forecasts.observed("m:2", 7, loss, is_own=is_own).items():
                numbers[key] = numbers.get(key, 0.0) + amount
            evidence = ramp_losses(Totals(numbers), "m:2", 7)
            verdict = judge(evidence, ALLOWED, by_context=False) if is_own else None
            if verdict is not None:
                break
        found[verdict] += 1
    return found


@pytest.mark.long
@pytest.mark.parametrize(("own", "rest", "seeds"), [(0.25, 0.2, 300), (0.05, 0.0, 100), (0.55, 0.5, 100)])
def test_false_alarms_are_as_rare_as_is_said(own: float, rest: float, seeds: int) -> None:
    """At the edge of what is allowed, where they are most likely, to either side."""
    found = verdicts(own, rest, seeds, answers=100)
    assert found["stopped"] <= FALSE_ALARMS * seeds and found["through"] <= FALSE_ALARMS * seeds


def test_losses_that_come_and_go_for_all_are_no_alarm() -> None:
    assert verdicts(0.25, 0.2, seeds=100, answers=100, drift=True)["stopped"] <= FALSE_ALARMS * 100


@pytest.mark.parametrize(("own", "rest", "most"), [(1.0, 0.2, 15), (0.9, 0.05, 15), (0.5, 0.2, 160)])
def test_harm_is_found_after_few_answers(own: float, rest: float, most: int) -> None:
    assert verdicts(own, rest, seeds=20, answers=most)["stopped"] >= 15


def test_what_mends_a_broken_model_is_through_after_few_answers() -> None:
    assert verdicts(0.1, 0.9, seeds=20, answers=25)["through"] >= 18
