"""``python -m benchmarks.learning.budgets``: budgets over an hour in which prices and queries change.

Groups of queries come by chance, and an answer is right by a model's quality in the query's group, which the policy
sees as features. In the second third all models become dearer, each by another factor; in the last third most queries
are of the group in which the dear model gains most. The peer is ParetoBandit, in an environment of its own, on the same
queries and answers: ``--peer PYTHON``.
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np

from clipper.learning.mathematics.costs import Costs
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import default_half_life, make_policy
from clipper.learning.policies.candidates import candidates
from clipper.learning.policies.policy import JudgedQuery, QueryView
from clipper.learning.policies.prices import Prices
from clipper.worker.selection.feedback.scoring import lesson

MODELS = ("dear", "middling", "cheap")
# By group, the loss of each model.
LOSSES = ((0.02, 0.2, 0.5), (0.02, 0.05, 0.6), (0.3, 0.32, 0.35))
BUDGET = 0.2
# Queries of an hour at one a second.
HOUR = 3600


@dataclass(frozen=True)
class Spell:
    """A part of the hour: its queries, the shares of the groups, and the models' costs."""

    queries: int
    shares: tuple[float, ...]
    costs: tuple[float, ...]

    def possible(self, mean_cost: float) -> float:
        """Return the best mean quality at this mean cost, if all is known: a linear program, by its dual."""
        losses, costs, shares = np.array(LOSSES), np.array(self.costs), np.array(self.shares)
        rates = np.linspace(0.0, 100.0, 100_001)
        priced = losses[None] + rates[:, None, None] * (costs[None, None] - mean_cost)
        return 1.0 - float((priced.min(axis=2) @ shares).max())


SPELLS = (
    Spell(HOUR // 3, (0.3, 0.4, 0.3), (1.0, 0.2, 0.01)),
    Spell(HOUR // 3, (0.3, 0.4, 0.3), (2.0, 0.5, 0.05)),
    Spell(HOUR // 3, (0.8, 0.1, 0.1), (2.0, 0.5, 0.05)),
)


@dataclass(frozen=True)
class Asked:
    """A query: its group, the costs, and whether each model's answer would be right."""

    group: int
    costs: tuple[float, ...]
    right: tuple[bool, ...]


def stream(seed: int, spells: Sequence[Spell] = SPELLS) -> list[Asked]:
    random, queries = Random(seed), []
    for spell in spells:
        for _ in range(spell.queries):
            group = random.choices(range(len(LOSSES)), spell.shares)[0]
            right = tuple(random.random() >= loss for loss in LOSSES[group])
            queries.append(Asked(group, spell.costs, right))
    return queries


def ours(policy_name: str, queries: Sequence[Asked], budget: float = BUDGET, seed: int = 1) -> list[int]:
    """Return the place of the model that each query asked."""
    policy, random, prices = make_policy(policy_name), Random(seed), Prices()
    ledger, asked = Ledger(default_half_life(policy_name)), []
    features = [row.tobytes() for row in np.eye(len(LOSSES))]
    for query in queries:
        prices.follow(Costs(dict(zip(MODELS, query.costs))), budget, None)
        view = QueryView(packed_features=features[query.group] if policy.needs_features else None)
        totals = ledger.totals()
        choice = policy.select(candidates(policy, MODELS, totals, view, 1.0, prices=prices), totals, view, random)
        prices.asked(choice.models)
        place = MODELS.index(choice.models[0])
        losses = {choice.models[0]: float(not query.right[place])}
        judged = JudgedQuery(packed_features=view.packed_features)
        ledger.add(ledger.entries(lesson(policy, choice, losses, totals, judged, {})))
        ledger.drop_stale()
        asked.append(place)
    return asked


def peers(python: str, mode: str, queries: Sequence[Asked], budget: float = BUDGET) -> list[int]:
    """Return the same of ParetoBandit, run by that Python."""
    task = {"mode": mode, "budget": budget, "groups": len(LOSSES), "queries": [asdict(query) for query in queries]}
    script = Path(__file__).parent / "pareto_bandit_peer.py"
    ran = subprocess.run([python, script], input=json.dumps(task), capture_output=True, text=True, check=True)
    found: list[int] = json.loads(ran.stdout)
    return found


def summary(queries: Sequence[Asked], asked: Sequence[int], spells: Sequence[Spell] = SPELLS) -> Mapping[str, float]:
    """Return means of the hour and of its parts: costs over the budget, and qualities over the possible ones.

    Quality is the expected one of the models that were asked, which varies less than what was right.
    """
    costs = np.array([query.costs[place] for query, place in zip(queries, asked)])
    quality = np.array([1.0 - LOSSES[query.group][place] for query, place in zip(queries, asked)])
    found, began = {"hour": float(costs.mean()) / BUDGET}, 0
    reached, possible = float(quality.mean()), 0.0
    for number, spell in enumerate(spells, 1):
        part = slice(began, began + spell.queries)
        began += spell.queries
        found[f"part {number}"] = float(costs[part].mean()) / BUDGET
        possible += spell.possible(BUDGET) * spell.queries
    found["quality"], found["of the possible"] = reached, reached * len(queries) / possible
    return found


def main() -> None:
    """Print a table: means over the seeds, and of the hour's cost the farthest from the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", metavar="PYTHON", help="the Python of an environment with paretobandit 0.1.1")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    streams = [stream(seed) for seed in range(options.seeds)]
    runs = {name: [ours(name, queries) for queries in streams] for name in ("linear_thompson", "adaptive", "thompson")}
    if options.peer:
        for mode in ("soft", "adaptive"):
            runs[f"ParetoBandit, {mode}"] = [peers(options.peer, mode, queries) for queries in streams]
    parts = [f"part {number}" for number in range(1, len(SPELLS) + 1)]
    print("| | cost of the hour / budget | farthest | " + " | ".join(parts) + " | quality | of the possible |")
    print("| --- |" + " --- |" * (len(parts) + 4))
    for name, chosen in runs.items():
        found = [summary(queries, asked) for queries, asked in zip(streams, chosen)]
        mean = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
        farthest = max((each["hour"] for each in found), key=lambda share: abs(share - 1.0))
        cells = [mean["hour"], farthest, *(mean[part] for part in parts), mean["quality"], mean["of the possible"]]
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
