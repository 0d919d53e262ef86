"""``cascade`` on its own: whom it asks next, what its answer is, and what threshold it learns."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.costs import Costs
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.cascade import EDGES, Cascade
from clipper.learning.policies.policy import Choice, JudgedQuery, Outlook, QueryView, Step
from clipper.worker.selection.feedback.scoring import lesson

MODELS = ("cheap", "dear")
COSTS = {"cheap": 1.0, "dear": 10.0}
TIME = Outlook(1.0, {"dear": 0.1})
CHEAP = Choice(("cheap",), (1.0,))
BOTH = Choice(("cheap", "dear"), (0.0, 1.0))
JUDGED = JudgedQuery()

# Of a query: how sure the cheap model is, and what each of the two loses.
Query = tuple[float, float, float]


def sure(confidence: float) -> bytes:
    return b'{"label": 1, "confidence": %r}' % confidence


def go_on(policy: Cascade, outputs: dict[str, bytes], outlook: Outlook = TIME, choice: Choice = CHEAP) -> Choice:
    further = policy.next(choice, outputs, Totals(), QueryView(), outlook, Random(0))
    return choice if further is None else further


def test_models_are_asked_by_cost_or_else_in_the_order_of_linking() -> None:
    policy, models = Cascade(0.5), ("a", "b", "c")
    costs = Totals(costs=Costs({"a": 9.0, "b": 1.0, "c": 3.0}))
    assert policy.select(models, Totals(), QueryView(), Random(0)).models == ("a",)
    choice = policy.select(models, costs, QueryView(), Random(0))
    asked = [choice.models]
    while len(choice.models) < 3:
        outlook = Outlook(1.0, {model: 0.1 for model in models if model not in choice.models})
        further = policy.next(choice, {choice.models[-1]: sure(0.1)}, costs, QueryView(), outlook, Random(0))
        assert further is not None
        choice = further
        asked.append(choice.models)
    assert asked == [("b",), ("b", "c"), ("b", "c", "a")]
    assert [step.asked for step in choice.steps] == [1, 2]


@pytest.mark.parametrize(
    ("outputs", "asks"),
    [
        (sure(0.79), True),
        (sure(0.8), False),
        (b"[0.1, 0.9]", False),
        (b"[0.5, 0.5]", True),
        (b'{"cat": 0.9, "dog": 0.1}', False),
        (b"3", True),  # a label alone says nothing of how sure it is
        (b"not json", True),
    ],
)
def test_the_next_is_asked_below_the_threshold(outputs: bytes, asks: bool) -> None:
    choice = go_on(Cascade(0.8), {"cheap": outputs})
    assert choice.models == (MODELS if asks else ("cheap",))
    assert choice.steps[0].probability == float(asks)


def test_of_plain_labels_two_are_asked_and_a_third_where_they_disagree() -> None:
    policy, outlook = Cascade(0.5), Outlook(1.0, {"third": 0.1})
    for outputs, asks in (
        ({"cheap": b"3", "dear": b"3.0"}, False),
        ({"cheap": b"3", "dear": b"4"}, True),
        ({"dear": b"4"}, True),
    ):
        assert (go_on(policy, outputs, outlook, BOTH).models == (*MODELS, "third")) is asks


def test_without_time_none_is_asked_and_a_faster_one_before_that() -> None:
    late = Outlook(0.05, {"dear": 0.1})
    assert go_on(Cascade(0.8), {"cheap": sure(0.1)}, late) == Choice(("cheap",), (1.0,), steps=(Step(1, 0.1, 0.0),))
    passed_over = Outlook(0.05, {"dear": 0.1, "dearest": 0.01})
    assert go_on(Cascade(0.8), {"cheap": sure(0.1)}, passed_over).models == ("cheap", "dearest")


def test_without_the_cheap_answer_the_next_is_asked_and_nothing_is_noted() -> None:
    assert go_on(Cascade(), {}) == BOTH
    assert go_on(Cascade(), {}, Outlook(0.05, {"dear": 0.1})) == CHEAP


def test_who_is_hardly_ever_in_time_is_not_begun_with_but_for_some_tries() -> None:
    policy, random = Cascade(0.8, explore=0.1), Random(0)
    late = Totals({("cheap", "pulls"): 50.0, ("cheap", "missed"): 49.0})
    drawn = [policy.select(MODELS, late, QueryView(), random) for _ in range(2000)]
    assert sum(choice.models == ("cheap",) for choice in drawn) == pytest.approx(200, abs=60)
    assert {choice.models: choice.shares[0] for choice in drawn} == {("dear",): 0.9, ("cheap",): 0.1}
    # Nor is it gone on to, as the cheaper one of those that are left, but for as many.
    dear, outlook = Choice(("dear",), (1.0,)), Outlook(1.0, {"cheap": 0.1})
    steps = [policy.next(dear, {"dear": sure(0.1)}, late, QueryView(), outlook, random) for _ in range(2000)]
    assert sum(choice is not None and len(choice.models) == 2 for choice in steps) == pytest.approx(200, abs=60)
    assert all(choice is not None and choice.steps[0].probability == 0.1 for choice in steps)


def test_the_answer_is_of_the_last_that_answered() -> None:
    policy = Cascade()
    outputs = {"dear": sure(0.7), "cheap": sure(0.4)}
    assert policy.combine(BOTH, outputs, Totals(), QueryView()).output == sure(0.7)
    assert policy.combine(BOTH, outputs, Totals(), QueryView()).confidence == 0.7
    assert policy.combine(BOTH, {"cheap": sure(0.4)}, Totals(), QueryView()) == policy.combine(
        CHEAP, outputs, Totals(), QueryView()
    )
    labels = {"cheap": b"1", "dear": b"2"}
    assert policy.combine(BOTH, labels, Totals(), QueryView()).confidence == 0.5
    assert policy.combine(CHEAP, labels, Totals(), QueryView()).confidence == 1.0


@pytest.mark.parametrize("parameters", [{"threshold": -0.1}, {"threshold": 1.5}, {"explore": 2}, {"explore": "no"}])
def test_parameters_are_checked(parameters: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        Cascade(**parameters)


def test_a_fixed_threshold_learns_nothing_and_a_reward_teaches_none() -> None:
    choice = Choice(MODELS, (0.0, 1.0), steps=(Step(1, 0.5, 1.0),))
    losses = {"cheap": 1.0, "dear": 0.0}
    assert Cascade(0.5).observe(choice, losses, Totals(), JUDGED) == {}
    assert Cascade().observe_reward(choice, losses, Totals(), JUDGED) == {}
    assert Cascade().observe(choice, losses, Totals(), JUDGED) == {
        ("cheap", "seen_3"): 1.0,
        ("cheap", "went_on_3"): 1.0,
        ("cheap", "excess_3"): -1.0,
    }


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from((0.0, 1.0)), st.sampled_from((0.0, 1.0))), max_size=30))
def test_whatever_was_learned_a_limit_is_the_end_of_a_range(queries: list[Query]) -> None:
    assert play(Cascade(explore=0.5), queries, Costs(COSTS, 0.01)).limit in {0.0, *EDGES, 1.01}


class Game:
    """
    Attributes:
        objective: mean loss and weighted cost; ``loss`` and ``went_on`` without.
        limit: that was learned in the end.
    """

    objective = loss = went_on = limit = 0.0


def play(
    policy: Cascade, queries: list[Query], costs: Costs, *, seed: int = 0, half_life: int | None = 5000, tail: int = 0
) -> Game:
    """One query after another, each with feedback. ``tail``: how many at the end are counted; 0 is all."""
    random, ledger, arms, game = Random(seed), Ledger(half_life), Arms({}, costs), Game()
    counted = tail or len(queries)
    for number, (confidence, of_cheap, of_dear) in enumerate(queries):
        totals = arms.view(ledger.totals())
        choice = policy.select(MODELS, totals, QueryView(), random)
        if choice.models == ("cheap",):
            choice = policy.next(choice, {"cheap": sure(confidence)}, totals, QueryView(), TIME, random) or choice
        of_model = {"cheap": of_cheap, "dear": of_dear}
        losses = {model: of_model[model] for model in choice.models}
        ledger.add(ledger.entries(lesson(policy, choice, losses, totals, JUDGED)))
        ledger.drop_stale()
        if number >= len(queries) - counted:
            loss = losses[choice.models[-1]]
            game.loss += loss / counted
            game.went_on += (choice.models[-1] == "dear") / counted
            game.objective += (loss + costs.weight * sum(map(costs.of, choice.models))) / counted
    game.limit = policy.limit("cheap", arms.view(ledger.totals()))
    return game


def best_fixed(queries: list[Query], costs: Costs) -> float:
    """The least mean loss and cost that any one threshold has on these queries."""
    dear = costs.weight * costs.of("dear")
    return min(
        sum(of_dear + dear if confidence < limit else of_cheap for confidence, of_cheap, of_dear in queries)
        for limit in (0.0, *EDGES, 1.01)
    ) / len(queries) + costs.weight * costs.of("cheap")


def digits(random: Random) -> Query:
    """A cheap model that is mostly sure and right as often as it says, and a dear one that errs a fifth as often."""
    sureness = 1 - 0.5 * random.random() ** 6 if random.random() < 0.9 else 0.3 + 0.6 * random.random()
    return (
        sureness,
        float(random.random() > sureness),
        float(random.random() < 0.02 + 0.25 * (1 - sureness)),
    )


def drawn(of: Callable[[Random], Query], count: int, seed: int) -> list[Query]:
    random = Random(seed)
    return [of(random) for _ in range(count)]


@pytest.mark.long
@pytest.mark.parametrize("weight", [0.0005, 0.002, 0.005, 0.02])
def test_the_learned_threshold_is_within_some_per_cent_of_the_best(weight: float) -> None:
    """Learning and exploring counted, over seeds."""
    costs, ratios = Costs(COSTS, weight), []
    for seed in range(3):
        queries = drawn(digits, 4000, seed)
        ratios.append(play(Cascade(), queries, costs, seed=seed).objective / best_fixed(queries, costs))
    assert sum(ratios) / len(ratios) < 1.10, ratios


def test_it_costs_less_than_the_dear_model_at_no_more_loss() -> None:
    queries = drawn(digits, 4000, 7)
    game = play(Cascade(), queries, Costs(COSTS, 0.001), tail=2000)
    of_dear = sum(loss for _, _, loss in queries[-2000:]) / 2000
    assert game.loss < of_dear + 0.01
    # The cheap one for all, and the dear one for these.
    assert 1 + 10 * game.went_on < 0.75 * 10


def test_it_finds_out_when_the_cheap_model_has_become_worse() -> None:
    def broken(random: Random) -> Query:
        sureness, _, of_dear = digits(random)
        return sureness, float(random.random() < 0.6), of_dear

    costs = Costs(COSTS, 0.01)
    queries = drawn(digits, 2000, 1) + drawn(broken, 4000, 2)
    assert play(Cascade(), queries[:2000], costs, tail=500).went_on < 0.5
    assert play(Cascade(), queries, costs, half_life=1000, tail=500).went_on > 0.9


def test_a_dear_model_that_is_never_better_is_hardly_asked() -> None:
    queries = [(confidence, loss, loss) for confidence, loss, _ in drawn(digits, 2000, 3)]
    assert play(Cascade(), queries, Costs(COSTS, 0.01), tail=500).went_on < 0.05


def test_without_a_weight_of_costs_it_goes_on_unless_that_makes_worse() -> None:
    queries = drawn(digits, 1500, 4)
    assert play(Cascade(), queries, Costs(COSTS)).went_on > 0.5
    worse = [(confidence, of_dear, of_cheap) for confidence, of_cheap, of_dear in queries]
    assert play(Cascade(), worse, Costs(COSTS), tail=500).went_on < 0.2


def test_on_digits_it_nears_the_best_threshold_and_beats_either_model() -> None:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order] / 16, labels[order]
    cheap = LogisticRegression(max_iter=300).fit(pixels[:150], labels[:150])
    dear = RandomForestClassifier(60, random_state=0).fit(pixels[:900], labels[:900])
    sureness = cheap.predict_proba(pixels[900:])
    digits = list(
        zip(
            sureness.max(axis=1).tolist(),
            (sureness.argmax(axis=1) != labels[900:]).astype(float).tolist(),
            (dear.predict(pixels[900:]) != labels[900:]).astype(float).tolist(),
        )
    )
    costs, queries = Costs(COSTS, 0.005), digits * 4
    alone = {
        "cheap": sum(loss for _, loss, _ in digits) / len(digits) + 0.005,
        "dear": sum(loss for _, _, loss in digits) / len(digits) + 0.05,
    }
    games = [play(Cascade(), queries, costs, seed=seed, tail=len(digits)) for seed in range(3)]
    objective = sum(game.objective for game in games) / len(games)
    assert objective < 1.25 * best_fixed(digits, costs)
    assert objective < 0.9 * min(alone.values()), (objective, alone)


def test_a_context_goes_by_what_all_have_taught() -> None:
    policy, costs = Cascade(), Costs(COSTS, 0.01)
    ledger, arms = Ledger(None), Arms({}, costs)
    for confidence, of_cheap, of_dear in drawn(digits, 1500, 5):
        choice = Choice(MODELS, (0.0, 1.0), steps=(Step(1, confidence, 1.0),))
        losses = {"cheap": of_cheap, "dear": of_dear}
        ledger.add(ledger.entries(lesson(policy, choice, losses, arms.view(ledger.totals()), JUDGED)))
    crowd = arms.view(ledger.totals())
    one = Ledger(None)
    one.add(one.entries(lesson(policy, CHEAP, {"cheap": 0.0}, crowd, JUDGED)))
    assert policy.limit("cheap", arms.view(one.totals()).with_prior(crowd)) == policy.limit("cheap", crowd) < 1.0
