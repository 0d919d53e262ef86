"""What Clipper's policies would have earned on a real shop's log: ``python -m benchmarks.learning.shop_log``.

The log is the small part of the Open Bandit Dataset, which the package obp holds (Saito, Aihara, Matsutani, Narita:
"Open Bandit Dataset and Pipeline", 2021): a week of a fashion shop, with 10,000 recommendations drawn evenly from 80
items, and 10,000 by its own Thompson sampling. An item is a model here, and a loss is that it was not clicked. Nearly
all losses are 1, so that IPS, which is not the same for losses and clicks, would show the weights and little else.
"""

import csv
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from clipper.learning.decisions.evaluation.estimators import Estimate
from clipper.learning.decisions.evaluation.samples import Sample
from clipper.learning.decisions.evaluation.whatif import Learner, evaluate, logged
from clipper.learning.policies.by_name import default_half_life, make_policy
from scripts.real_models import unpacked

PACKAGE = "obp==0.4.1"
ITEMS = 80
POLICIES = ("adaptive", "thompson", "ucb1", "epsilon_greedy", "exp3")
# Clicks come within seconds.
FEEDBACK_AFTER_S = 60.0
SEED = 1


def samples(log: str, rows: int | None = None) -> list[Sample]:
    """The first ``rows`` of the log ``random`` or ``bts``, in the order of their time."""
    path = unpacked(PACKAGE) / "obp" / "dataset" / "obd" / log / "all" / "all.csv"
    found = sorted(_samples(path), key=lambda sample: sample.time_s)
    return found[:rows]


def _samples(path: Path) -> Iterator[Sample]:
    items = tuple(f"item-{number}" for number in range(ITEMS))
    versions = ("1",) * ITEMS
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            time_s = datetime.fromisoformat(row["timestamp"]).timestamp()
            chosen = items[int(row["item_id"])]
            loss = 1.0 - float(row["click"])
            propensity = float(row["propensity_score"])
            yield Sample(time_s, time_s + FEEDBACK_AFTER_S, items, versions, None, chosen, propensity, loss)


def clicks(estimate: Estimate | None) -> str:
    """Of a mean loss, the clicks in a thousand."""
    if estimate is None:
        return "-"
    value, low, high = ((1.0 - loss) * 1000 for loss in (estimate.value, estimate.high, estimate.low))
    return f"{value:.1f} [{max(low, 0.0):.1f}, {high:.1f}]"


def main() -> None:
    even, shops = samples("random"), samples("bts")
    table = Table("policy", "SNIPS", "DR", "effective queries", title="clicks in 1,000, with 95 % intervals")
    table.add_row("an even draw, as it was", clicks(logged(even)), "", f"{len(even):,d}")
    table.add_row("the shop's own Thompson sampling, as it was", clicks(logged(shops)), "", f"{len(shops):,d}")
    for name in POLICIES:
        answer = evaluate(even, Learner(name, make_policy(name), Random(SEED), default_half_life(name), 0.0))
        estimates = (answer.snips, answer.dr)
        table.add_row(name, *map(clicks, estimates), f"{answer.effective_queries:,.0f}")
        sys.stderr.write(f"{name}: {'; '.join(answer.warnings) or 'no warnings'}\n")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
