"""Newcomers in simulation: an application with its policy, state, ramp and guardrail, all chance from seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from clipper.learning.mathematics.arms import Arms, lineage
from clipper.learning.mathematics.guardrail import Forecasts, Verdict, judge, ramp_losses
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.by_name import POLICIES, is_by_context, make_policy
from clipper.learning.policies.policy import Choice, JudgedQuery, QueryView
from clipper.learning.policies.ramp import Ramp
from clipper.settings.application import Selection
from clipper.worker.selection.feedback.scoring import lesson, shown_of_newcomers
from tests.learning.policies.bandits import RIGHT, answer

# A model m, of which a second version comes after so many queries, and another beside it.
BEFORE = 1500
PREDECESSORS = {"1": None, "2": "1"}
NEW = "m:2"


@dataclass
class Game:
    """
    Attributes:
        losses: of the answers since the second version came.
        choices: of the same queries.
        verdict, verdict_at: what became of it, and after how many of them; None if nothing has yet.
        feedback: how many answers it had had a part in by then.
    """

    losses: list[float] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    verdict: Verdict | None = None
    verdict_at: int | None = None
    feedback: int = 0

    def asked(self, name: str, start: int = 0, end: int | None = None) -> float:
        """The share of queries that asked it."""
        asked = [name in choice.models for choice in self.choices[start:end]]
        return sum(asked) / len(asked)


def play(
    policy_name: str,
    errors: Mapping[str, float],
    after: int,
    seed: int,
    *,
    share: float | None = 0.05,
    max_loss_increase: float | None = 0.05,
) -> Game:
    """Ask ``BEFORE`` queries of the first version and ``after`` beside the second, on feedback that comes at once.

    Args:
        errors: how often each errs, of ``m:1``, ``m:2`` and ``o:1``.
        share: of the ramp; None is none, as it is once the version is through.
    """
    policy, chance, noise = make_policy(policy_name), Random(seed), Random(seed + 1)
    kind, inherit = POLICIES[policy_name], Selection().inherit
    ledger, forecasts, game = Ledger(kind.default_half_life), Forecasts(), Game()

    def line_up(version: str, ramp: Ramp | None) -> tuple[Arms, Ramp | None]:
        origins = {"m": lineage("m", version, PREDECESSORS, inherit), "o": lineage("o", "1", PREDECESSORS, inherit)}
        if ramp is None:
            return Arms(origins), None
        return Arms({**origins, NEW: lineage("m", "2", PREDECESSORS, inherit)}, ramps={NEW: 1}), ramp

    arms, ramp = line_up("1", None)
    for step in range(BEFORE + after):
        if step == BEFORE:
            arms, ramp = line_up("2", None) if share is None else line_up("1", Ramp({NEW: "m"}, share))
        totals = arms.view(ledger.totals())

        def select(models: tuple[str, ...], totals: Totals = totals) -> Choice:
            return policy.select(models, totals, QueryView(), chance)

        is_joint = policy.feedback == "all"
        choice = ramp.select(("m", "o"), select, chance, is_joint=is_joint) if ramp else select(("m", "o"))
        scored = ("m", "o", *choice.models) if is_joint else choice.models
        losses = {model: float(chance.random() < errors[arms.key(model)]) for model in dict.fromkeys(scored)}
        if len(choice.models) > 1:
            outputs = {model: answer(losses[model], noise) for model in choice.models}
            loss = float(policy.combine(choice, outputs, totals, QueryView()).output != RIGHT)
        else:
            loss = losses[choice.models[0]]
        increments = dict(lesson(policy, choice, losses, totals, JudgedQuery()))
        if arms.ramps:
            increments |= shown_of_newcomers(arms, arms, forecasts, choice.models, loss)
        ledger.add(ledger.entries(arms.keyed(increments)))
        if step < BEFORE:
            continue
        game.losses.append(loss)
        game.choices.append(choice)
        if ramp is not None:
            evidence = ramp_losses(ledger.totals(), NEW, 1)
            by_context = is_by_context(policy_name, Selection().prior_weight)
            game.verdict = judge(evidence, max_loss_increase, by_context=by_context)
            if game.verdict is not None:
                game.verdict_at, game.feedback = len(game.losses), round(evidence.newcomer.count)
                arms, ramp = line_up("2" if game.verdict == "through" else "1", None)
    return game
