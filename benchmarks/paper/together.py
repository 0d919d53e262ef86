"""What answers of several models err, by policy: five classifiers of scikit-learn's, and the networks of figure 8.

``python -m benchmarks.paper.together`` prints the table of docs/ensembles.md. Policies are simulated, with the label
after each answer.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks.paper import networks
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.simulated_failure import BREAKS_AT, BROKEN, RECOVERS_AT
from benchmarks.paper.training import CLASSIFIERS, trained
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import default_half_life, make_policy
from clipper.policies import JudgedQuery, QueryView
from clipper.worker.selection.feedback.scoring import lesson

CLASSIFIERS_ALIKE = ("svm", "net", "deep_net", "forest", "neighbours")
POLICIES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("ensemble", {}),
    ("ensemble", {"weighting": "equal"}),
    ("exp4", {}),
    ("stacking", {}),
)


def error(name: str, parameters: Mapping[str, Any], given: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The share of answers that are wrong.

    Args:
        given: what each model answers to each image, of shape (images, models).
        labels: of shape (images,).
    """
    policy, ledger = make_policy(name, parameters), Ledger(default_half_life(name))
    models, random, query = tuple(f"m{number}" for number in range(given.shape[1])), Random(0), QueryView()
    wrong = 0
    for row, label in zip(given.tolist(), labels.tolist()):
        outputs = {model: b"%d" % value for model, value in zip(models, row)}
        totals, right = ledger.totals(), b"%d" % label
        choice = policy.select(models, totals, query, random)
        wrong += policy.combine(choice, outputs, totals, query).output != right
        losses = {model: float(output != right) for model, output in outputs.items()}
        judged = JudgedQuery(outputs=outputs, label=right)
        ledger.add(ledger.entries(lesson(policy, choice, losses, totals, judged)))
        ledger.drop_stale()
    return wrong / len(labels)


def main() -> None:
    data, networks_say = fashion_mnist(), networks.outputs()
    alike = np.stack(
        [
            joblib.load(trained(CLASSIFIERS[name](), data.train)).predict(data.stream.inputs)
            for name in CLASSIFIERS_ALIKE
        ],
        axis=1,
    )
    broken = networks_say.given.copy()
    noise = np.random.default_rng(0).integers(0, 10, RECOVERS_AT - BREAKS_AT)
    broken[BREAKS_AT:RECOVERS_AT, BROKEN] = noise
    for title, given, labels in (
        ("five classifiers", alike, data.stream.labels),
        ("figure 8, none broken", networks_say.given, networks_say.labels),
        ("figure 8", broken, networks_say.labels),
    ):
        errors = [error(name, parameters, given, labels) for name, parameters in POLICIES]
        best = (given != labels[:, None]).mean(axis=0).min()
        print(f"| {title} | {best:.4f} | {' | '.join(f'{each:.4f}' for each in errors)} |")


if __name__ == "__main__":
    main()
