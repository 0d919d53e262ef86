"""Targets on simulated logs, whose truth is known."""

import math
from collections.abc import Callable
from random import Random

import pytest

from clipper.errors import InvalidArgument
from clipper.learning.decisions.evaluation.samples import Sample, samples_of
from clipper.learning.decisions.evaluation.whatif import Learner, OneModel, evaluate, logged
from clipper.learning.decisions.joining import Joined
from clipper.learning.decisions.records import Decision, Judgement, Setting
from clipper.learning.policies.by_name import make_policy

pytestmark = pytest.mark.long

MODELS = ("a", "b", "c")
ERRORS = {"a": 0.5, "b": 0.3, "c": 0.1}


def log_of(
    seed: int,
    queries: int = 1500,
    chances: tuple[float, ...] = (0.6, 0.3, 0.1),
    error: Callable[[str, str | None], float] = lambda model, _: ERRORS[model],
    contexts: tuple[str | None, ...] = (None,),
    late_s: float = 0.5,
) -> list[Sample]:
    random = Random(seed)
    found = []
    for number in range(queries):
        (model,) = random.choices(MODELS, chances)
        context = random.choice(contexts)
        loss = float(random.random() < error(model, context))
        chance = chances[MODELS.index(model)]
        found.append(Sample(number, number + late_s, MODELS, ("1",) * 3, context, model, chance, loss))
    return found


def learner(policy: str = "thompson", models: tuple[str, ...] | None = None, **parameters: object) -> Learner:
    return Learner(policy, make_policy(policy, parameters), Random(1), 1000, 20.0, models)


def test_a_model_loses_what_it_would_have() -> None:
    samples = log_of(1, 6000)
    for model, error in ERRORS.items():
        answer = evaluate(samples, OneModel(model))
        assert answer.warnings == () and answer.shares == {model: 1.0}
        for estimate in (answer.ips, answer.snips, answer.dr):
            assert estimate is not None and estimate.low - 0.02 <= error <= estimate.high + 0.02
    assert logged(samples).value == pytest.approx(0.6 * 0.5 + 0.3 * 0.3 + 0.1 * 0.1, abs=0.03)


@pytest.mark.parametrize("policy", ["adaptive", "epsilon_greedy", "thompson", "exp3"])
def test_intervals_of_a_learning_policy_hold_what_it_loses(policy: str) -> None:
    """The truth is the mean, over the queries, of what its probabilities at each would have lost."""
    held, seeds = dict.fromkeys(("ips", "snips", "dr"), 0), 25
    for seed in range(seeds):
        samples = log_of(seed, 600, (0.4, 0.3, 0.3))
        answer = evaluate(samples, learner(policy))
        truth = sum(share * ERRORS[model] for model, share in answer.shares.items())
        for name in held:
            estimate = getattr(answer, name)
            held[name] += estimate.low <= truth <= estimate.high
    # At 95 % it is below 20 of 25 once in a thousand times.
    assert min(held.values()) >= 20


def test_a_policy_knows_only_feedback_that_had_come() -> None:
    early, never = (evaluate(log_of(1, 400, late_s=late_s), learner()) for late_s in (0.5, 1e9))
    assert early.shares["c"] > 0.6
    assert never.shares == pytest.approx(dict.fromkeys(MODELS, 1 / 3))


def test_contexts_have_states_and_expectations_of_their_own() -> None:
    best = {"me": "a", "you": "c"}

    def error(model: str, context: str | None) -> float:
        return 0.1 if model == best[str(context)] else 0.7

    samples = log_of(2, 3000, (0.4, 0.3, 0.3), error, ("me", "you"))
    answer = evaluate(samples, learner())
    assert answer.dr is not None and answer.dr.high < 0.3
    fixed = evaluate(samples, OneModel("a"))
    assert fixed.dr is not None and fixed.ips is not None
    assert fixed.dr.high - fixed.dr.low < 0.8 * (fixed.ips.high - fixed.ips.low)
    assert fixed.dr.low <= 0.4 <= fixed.dr.high


def test_among_some_of_the_models() -> None:
    answer = evaluate(log_of(1), learner(models=("a", "b")))
    assert answer.shares.keys() == {"a", "b"}


def test_where_the_log_never_went_there_is_no_answer() -> None:
    samples = log_of(1, chances=(0.5, 0.5, 0.0))
    answer = evaluate(samples, OneModel("c"))
    assert (answer.ips, answer.snips, answer.dr) == (None, None, None)
    assert "never chose c" in answer.warnings[0]
    partly = evaluate(samples, learner("epsilon_greedy", epsilon=0.3))
    assert partly.ips is not None and "never chose c" in partly.warnings[0]


def test_where_it_hardly_went_the_answer_is_doubted() -> None:
    answer = evaluate(log_of(1, 400, (0.49, 0.49, 0.02)), OneModel("c"))
    assert answer.effective_queries < 20
    assert "queries' worth of evidence" in answer.warnings[0]


def test_propensities_that_are_wrong_show() -> None:
    samples = [
        Sample(s.time_s, s.feedback_time_s, s.candidates, s.versions, s.context, s.model, s.propensity / 3, s.loss)
        for s in log_of(1, 3000)
    ]
    assert "should be 1" in evaluate(samples, OneModel("a")).warnings[0]


def test_a_policy_that_has_several_models_answer_together_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="several models together"):
        evaluate(log_of(1, 10), learner("ensemble"))


def test_a_policy_asking_models_in_turn_is_refused_and_queries_left_out() -> None:
    with pytest.raises(InvalidArgument, match="one model after another"):
        learner("cascade")
    stopped = Joined(
        Setting("app", "cascade", ("a", "b"), ("1", "1")),
        Decision(0, 1, 0.0, 0.0, ("a",), (1.0,), (b"1",), None, 0.9, None, None, steps=((1, 0.9, 0.02),)),
        Judgement("app", 1, 1.0, b"1", None, {"a": 0.0}),
        1,
    )
    found = samples_of([stopped])
    assert found.taken == [] and found.left_out == {"its models were asked one after another": 1}


def test_a_model_that_came_later_is_judged_where_it_could_be_chosen() -> None:
    samples = log_of(1, 3000)
    before = [Sample(s.time_s - 5000, s.time_s - 4999, ("a",), ("1",), None, "a", 1.0, 1.0) for s in samples]
    answer = evaluate([*before, *samples], OneModel("c"))
    assert answer.snips is not None and answer.snips.value == pytest.approx(0.1, abs=0.05)


def test_nothing_is_wrong_with_one_query() -> None:
    answer = evaluate(log_of(1, 1), OneModel("a"))
    assert answer.ips is None or math.isinf(answer.ips.high)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -0.1, 7.0])
def test_losses_that_are_none_are_left_out(loss: float) -> None:
    """A draw from what such a loss teaches may take for ever."""
    joined = one_query(losses={"a": loss})
    assert samples_of([joined]).left_out == {"its loss is not from 0 to 1": 1}


@pytest.mark.parametrize("share", [math.nan, -1.0, 0.0, 1e-300])
def test_shares_that_are_no_probabilities_are_left_out(share: float) -> None:
    joined = one_query(share=share)
    assert samples_of([joined]).left_out == {"the probability of its choice is not known": 1}


def one_query(share: float = 0.5, losses: dict[str, float] | None = None) -> Joined:
    decision = Decision(0, 1, 1.0, 0.002, ("a",), (share,), (b"1",), None, 1.0, None, None)
    judgement = Judgement("app", 1, 2.0, b"1", None, losses or {"a": 0.0})
    return Joined(Setting("app", "exp3", MODELS, ("1",) * 3), decision, judgement, 1)
