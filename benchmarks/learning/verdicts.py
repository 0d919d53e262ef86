"""How often reports are wrong about models that a policy picks by context, and how much feedback a true verdict takes.

Beside it stands a comparison of the means of all losses, which is what a report must not do there. Run it by
``python -m benchmarks.learning.verdicts [RUNS]``, as ``make best-arm`` does.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pool
from random import Random
from statistics import median

from clipper.learning.mathematics.basis import basis_of
from clipper.learning.mathematics.comparison import ModelEvidence, PooledEvidence
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import TELLS_PICKED, Totals
from clipper.learning.mathematics.weighing import has_begun, weighed
from clipper.learning.policies.by_name import default_half_life, make_policy
from clipper.learning.policies.policy import JudgedQuery, Policy, QueryView
from clipper.worker.selection.feedback.picking import how_picked, weights_of
from clipper.worker.selection.feedback.scoring import lesson

RUNS = 1000
PIECES = 1000
# A verdict that is wrong at one of these looks counts as wrong.
LOOK_EVERY = 25
CONFIDENCE = 0.95
LINEUP = "all"

# Mean losses by context, and by model.
Losses = Mapping[str | None, Mapping[str, float]]
SIMPSON: Losses = {"hard": {"a": 0.4, "b": 0.8}, "easy": {"a": 0.25, "b": 0.0}}


def evenly(step: int) -> Sequence[float]:
    return (0.5, 0.5)


def turning(step: int) -> Sequence[float]:
    """At first nearly all queries are of the first context, and later nearly all are of the second."""
    return (0.9, 0.1) if step < PIECES / 4 else (0.1, 0.9)


def at_once(step: int) -> Sequence[float]:
    return (1.0,)


@dataclass(frozen=True, slots=True)
class Game:
    """
    Attributes:
        losses: mean losses of 0 and 1. Queries have a context if there are several.
        mix: the shares of the contexts at a query.
        pieces: the number of pieces of feedback.
    """

    name: str
    policy: str
    losses: Losses
    mix: Callable[[int], Sequence[float]] = evenly
    pieces: int = PIECES


EQUAL: Losses = {"hard": {"a": 0.5, "b": 0.5}, "easy": {"a": 0.1, "b": 0.1}}
CROSSED: Losses = {"hard": {"a": 0.2, "b": 0.8}, "easy": {"a": 0.6, "b": 0.0}}
ALIKE: Losses = {None: {"a": 0.2, "b": 0.2}}
APART: Losses = {None: {"a": 0.1, "b": 0.2}}
# One model is better in both contexts, where losses differ more than models do.
BETTER: Losses = {"hard": {"a": 0.5, "b": 0.8}, "easy": {"a": 0.1, "b": 0.4}}
GAMES = [
    Game("a is better, b seems to be", "exp3", SIMPSON),
    Game("the same", "thompson", SIMPSON),
    Game("the same", "epsilon_greedy", SIMPSON),
    Game("the same", "adaptive", SIMPSON),
    Game("each is better in one of two contexts, equal in all", "exp3", CROSSED),
    Game("the same, the mix of contexts turns", "exp3", CROSSED, turning),
    Game("the same, the mix of contexts turns", "thompson", CROSSED, turning),
    Game("equal, in two contexts", "exp3", EQUAL),
    Game("equal, in two contexts, the mix turns", "epsilon_greedy", EQUAL, turning),
    Game("equal, no contexts", "exp3", ALIKE, at_once),
    Game("equal, no contexts", "thompson", ALIKE, at_once),
    Game("equal, no contexts", "epsilon_greedy", ALIKE, at_once),
    Game("a is better in both contexts", "exp3", BETTER),
    Game("a is better, no contexts", "exp3", APART, at_once),
    Game("a is better, no contexts", "thompson", APART, at_once),
]


@dataclass(slots=True)
class Result:
    """What was said of the models at a look: a wrong verdict at any, and the pieces of feedback at the first true one.

    ``by_means`` is the same by the means of all losses.
    """

    is_wrong: bool = False
    known_at: int | None = None
    by_means: "Result | None" = None

    def look(self, game: Game, evidence: ModelEvidence, mean: Mapping[str, float], pieces: int) -> None:
        error = 1 - CONFIDENCE
        for model, excess in mean.items():
            others = [other for other in mean if other != model]
            limit = math.log(evidence.statements(len(mean)) / error)
            if all(evidence.log_capital_less(model, other) >= limit for other in others):
                # Equal models have no best one.
                if all(excess < mean[other] for other in others):
                    self.known_at = self.known_at or pieces
                else:
                    self.is_wrong = True


@dataclass(slots=True)
class Application:
    """An application's states under a policy, which learns from feedback on each query at once."""

    policy_name: str
    models: tuple[str, ...]
    everyone: Ledger = field(init=False)
    contexts: dict[str, Ledger] = field(default_factory=dict)
    policy: Policy = field(init=False)

    def __post_init__(self) -> None:
        self.everyone = Ledger(default_half_life(self.policy_name))
        self.policy = make_policy(self.policy_name)

    def ask(self, context: str | None, loss_of: Mapping[str, float], random: Random) -> str:
        """Ask a query, learn from its feedback, and return the model that answered."""
        policy, prior = self.policy, self.everyone.totals()
        own = None if context is None else self.contexts.setdefault(context, Ledger(self.everyone.half_life))
        totals = prior if own is None else own.totals().with_prior(prior)
        choice = policy.select(self.models, totals, QueryView(context), random)
        losses = {choice.models[0]: loss_of[choice.models[0]]}
        picked = how_picked(
            policy.goes_by,
            learns=policy.learns,
            is_pinned=False,
            has_context=context is not None,
            knows_context=own is not None and own.clock > 0,
            is_partial=False,
        )
        taught = lesson(policy, choice, losses, prior, JudgedQuery(context), is_picked=picked.among_all)
        if picked.is_weighed or has_begun(prior, LINEUP):
            taught = {**taught, **weighed(losses, weights_of(choice, (), random), LINEUP, self.models, prior)}
        if own is not None:
            of_context = lesson(policy, choice, losses, totals, JudgedQuery(context), is_picked=picked.in_context)
            own.add(own.entries(of_context))
            own.drop_stale()
        if not self.everyone.clock:
            taught = {**taught, ("", TELLS_PICKED): 1.0}
        self.everyone.add(self.everyone.entries(taught))
        self.everyone.drop_stale()
        return choice.models[0]

    def evidence(self) -> ModelEvidence:
        """Return what a report compares the models by."""
        names = {model: model for model in self.models}
        return basis_of(
            self.everyone.totals(),
            self.everyone.clock,
            names,
            self.policy.goes_by,
            is_of_context=False,
            has_contexts=bool(self.contexts),
        ).evidence

    def means(self) -> ModelEvidence:
        """Return the means of all losses, as a report had them before."""
        plain: Totals = self.everyone.totals()
        numbers = {key: each for key, each in plain.numbers.items() if not key[1].startswith("picked_")}
        ever = Totals(numbers)
        return PooledEvidence({model: ever.evidence(model) for model in self.models}, self.everyone.clock)


def play(game: Game, seed: int) -> Result:
    random, contexts = Random(seed), list(game.losses)
    models = tuple(game.losses[contexts[0]])
    application, found, sums = Application(game.policy, models), Result(by_means=Result()), dict.fromkeys(models, 0.0)
    assert found.by_means is not None
    for step in range(game.pieces):
        (context,) = random.choices(contexts, game.mix(step))
        means = game.losses[context]
        for model in models:
            sums[model] += means[model]
        application.ask(context, {model: float(random.random() < means[model]) for model in models}, random)
        if (step + 1) % LOOK_EVERY == 0:
            # Over the queries as they came.
            mean = {model: round(sums[model] / (step + 1), 12) for model in models}
            found.look(game, application.evidence(), mean, step + 1)
            found.by_means.look(game, application.means(), mean, step + 1)
    return found


def main(runs: int, games: Sequence[Game] = GAMES) -> None:
    print("| game | policy | feedback | wrong | known after | by means: wrong | known after |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with Pool() as pool:
        for game in games:
            found = pool.map(partial(play, game), range(runs), 4)
            means = [each.by_means for each in found if each.by_means is not None]
            print(
                f"| {game.name} | {game.policy} | {game.pieces:,d} | {_wrong(found)} | {_known(found)} | "
                f"{_wrong(means)} | {_known(means)} |"
            )
            sys.stdout.flush()


def _wrong(found: Sequence[Result]) -> str:
    return f"{sum(each.is_wrong for each in found)} of {len(found)}"


def _known(found: Sequence[Result]) -> str:
    """The median of the feedback until the true verdict, if half of the runs have one."""
    known = sorted(each.known_at or math.inf for each in found)
    middle = median(known)
    return f"{middle:,.0f}" if math.isfinite(middle) else ""


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
