"""Simulated bandits: a policy and its state against made-up losses, all chance from seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import LOSS, SCORED, Totals, tally
from clipper.learning.policies.policy import JudgedQuery, Policy, QueryView

MODELS = ("a", "b", "c", "d", "e")
RIGHT = b"0"

# The losses of all models at a step, in their order.
Losses = Callable[[int], Sequence[float]]


@dataclass
class Game:
    """The course of a game: the answers' losses, each model's, and at each step the model with the largest share."""

    losses: list[float] = field(default_factory=list)
    of_models: list[Sequence[float]] = field(default_factory=list)
    leaders: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        return sum(self.losses)

    @property
    def static_losses(self) -> list[float]:
        """The losses that each model alone would have had."""
        return [sum(losses) for losses in zip(*self.of_models)]

    def steps_until(self, start: int, came: Callable[[float], bool], model: str = "a", window: int = 100) -> int | None:
        """How long after ``start`` the model's share of the last ``window`` queries first is as wanted."""
        for end in range(start + window, len(self.leaders) + 1):
            if came(self.leaders[end - window : end].count(model) / window):
                return end - start
        return None


def play(policy: Policy, losses: Losses, steps: int, *, seed: int = 0, half_life: int | None = None) -> Game:
    """Ask, answer and learn, one query after another, on feedback that comes at once."""
    chance, noise = Random(seed), Random(seed + 1)
    ledger, game = Ledger(half_life), Game()
    for step in range(steps):
        of_models = losses(step)
        by_model = dict(zip(MODELS, of_models))
        totals = ledger.totals()
        choice = policy.select(MODELS[: len(of_models)], totals, QueryView(), chance)
        judged = JudgedQuery()
        if len(choice.models) == 1:
            scored = {choice.models[0]: by_model[choice.models[0]]}
            game.losses.append(scored[choice.models[0]])
        else:
            scored = by_model
            outputs = {model: answer(loss, noise) for model, loss in by_model.items()}
            judged = JudgedQuery(outputs=outputs)
            game.losses.append(float(policy.combine(choice, outputs, totals, QueryView()).output != RIGHT))
        game.of_models.append(of_models)
        game.leaders.append(max(zip(choice.shares, choice.models))[1])
        ledger.add(ledger.entries({**tally(choice.models, scored), **policy.observe(choice, scored, totals, judged)}))
        ledger.drop_stale()
    return game


def answer(loss: float, noise: Random) -> bytes:
    """A digit that is right, or one of nine wrong ones."""
    return b"%d" % noise.randint(1, 9) if loss else RIGHT


def bernoulli(means: Sequence[float], seed: int = 0) -> Losses:
    """Losses of 0 and 1 with these means, independent."""
    random = Random(seed)
    return lambda _step: [float(random.random() < mean) for mean in means]


def failing(means: Sequence[float], seed: int = 0, broken: range = range(5000, 10000)) -> Losses:
    """The same, but the first model guesses one of ten while it is ``broken``."""
    random = Random(seed)

    def losses(step: int) -> list[float]:
        now = [0.9, *means[1:]] if step in broken else means
        return [float(random.random() < mean) for mean in now]

    return losses


def pseudo_regret(means: Sequence[float], asked: Sequence[str]) -> float:
    """The sum by which the mean losses of the models that were asked exceed the best model's."""
    excess = {model: mean - min(means) for model, mean in zip(MODELS, means)}
    return sum(excess[model] for model in asked)


def mean_regret(policy: Policy, means: Sequence[float], steps: int, games: int) -> float:
    """Of games with different seeds, nothing being forgotten; ``policy`` asks one model a query."""
    played = [play(policy, bernoulli(means, seed), steps, seed=seed) for seed in range(games)]
    return sum(pseudo_regret(means, game.leaders) for game in played) / games


def learned(scored: dict[str, tuple[float, float]]) -> Totals:
    """A state that holds this (count, loss) of each model."""
    counts = {(model, SCORED): count for model, (count, _) in scored.items()}
    return Totals(counts | {(model, LOSS): loss for model, (_, loss) in scored.items()})
