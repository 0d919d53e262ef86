"""Figure 7: an ensemble errs less than its best model, and its confidence tells where."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, for_each
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.training import CLASSIFIERS, trained

MODELS = ("svm", "net", "deep_net", "forest", "neighbours")
# Long enough for all five to answer every query: how it is with late ones is figure 9's matter.
SLO_MS = 2_000
CONNECTIONS = 32
# As the paper divides the queries: by how many of the five agree with the answer.
AGREEING = (4, 5)
ENSEMBLE = "ensemble"


def measure(bench: Bench) -> Numbers:
    """Ask the ensemble and each model alone for the 30,000 images that no model has seen."""
    data = fashion_mnist()
    asked = data.held_out
    bench.deploy({name: trained(CLASSIFIERS[name](), data.train) for name in MODELS})
    bench.create(ENSEMBLE, MODELS, slo_ms=SLO_MS, policy="ensemble")
    # The ensemble comes first, and so asks the models; what each alone answers comes from the cache then.
    applications = [ENSEMBLE, *(bench.create(f"only-{name}", [name], slo_ms=SLO_MS) for name in MODELS)]
    outputs = {application: np.zeros(len(asked), np.int64) for application in applications}
    confidence = np.zeros(len(asked))
    bodies = encode_inputs(asked.inputs)

    async def ask(connection: Connection, row: int) -> None:
        body = b'{"input":%b}' % bodies[row]
        for application in applications:
            answer = await connection.post(f"/{application}/predict", body)
            outputs[application][row] = answer["output"]
            if application == ENSEMBLE:
                confidence[row] = answer["confidence"]

    for_each(bench.address, CONNECTIONS, range(len(asked)), ask)
    errors = {application: outputs[application] != asked.labels for application in applications}
    return {
        "queries": len(asked),
        "model_errors": {name: float(errors[f"only-{name}"].mean()) for name in MODELS},
        "ensemble_error": float(errors[ENSEMBLE].mean()),
        "agreement": [split(errors[ENSEMBLE], confidence, count) for count in AGREEING],
    }


def split(errors: NDArray[np.bool_], confidence: NDArray[np.float64], agreeing: int) -> Mapping[str, Any]:
    """The error where at least so many of the models agree, and elsewhere; None where there are no queries.

    Args:
        errors: whether each query's answer was wrong.
        confidence: of each answer, in [0, 1]: the share of the models that agree with it.
    """
    confident = np.rint(confidence * len(MODELS)) >= agreeing
    return {
        "agreeing": agreeing,
        "confident_error": float(errors[confident].mean()) if confident.any() else None,
        "unsure_error": float(errors[~confident].mean()) if not confident.all() else None,
        "unsure_share": float(1 - confident.mean()),
    }


def judge(numbers: Numbers) -> Verdict:
    best = min(numbers["model_errors"].values())
    ensemble = numbers["ensemble_error"]
    # "Well" below and above: by half of the ensemble's error.
    separates = all(
        part["confident_error"] is not None
        and part["unsure_error"] is not None
        and part["confident_error"] <= ensemble / 1.5
        and part["unsure_error"] >= ensemble * 1.5
        for part in numbers["agreement"]
    )
    parts = "; ".join(
        f"{part['agreeing']} of 5 agree: {part['confident_error']:.3f}, else {part['unsure_error']:.3f} "
        f"({part['unsure_share']:.0%} of queries)"
        for part in numbers["agreement"]
    )
    text = f"best model errs {best:.4f}, ensemble {ensemble:.4f} ({ensemble / best - 1:+.1%}); {parts}"
    return Verdict(text, ensemble < best and separates)


FIGURE = Figure("ensembles", "figure 7: ensembles and their confidence", measure, judge)
