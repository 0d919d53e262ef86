"""Figure 7: an ensemble of several frameworks' models errs less than the best one, and its confidence tells where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.pages import table
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, for_each
from benchmarks.paper.data import Labelled, fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict
from benchmarks.paper.training import CLASSIFIERS, exported_pictures, trained
from scripts.real_models import environment


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the ensemble.

    Attributes:
        framework: what it is made with, and runs in.
        file: makes it, and returns it.
        environment: the name of the framework's requirements; None for Clipper's own environment.
    """

    framework: str
    kind: str
    file: Callable[[Labelled], Path]
    environment: str | None = None
    options: tuple[str, ...] = ()


def _exported(framework: str, file: str) -> Callable[[Labelled], Path]:
    return lambda data: exported_pictures(f"fashion_{framework}", framework, data) / file


MODELS = {
    "svm": Model("scikit-learn", "kernel SVM", lambda data: trained(CLASSIFIERS["svm"](), data)),
    "xgboost": Model("XGBoost", "boosted trees", _exported("xgboost", "boosted.ubj"), "xgboost"),
    "lightgbm": Model("LightGBM", "boosted trees", _exported("lightgbm", "boosted.txt"), "lightgbm"),
    "onnx": Model(
        "ONNX Runtime", "network of one hidden layer", _exported("onnx", "network.onnx"), "onnx", ("--output", "labels")
    ),
    "torch": Model(
        "PyTorch", "convolutional network", _exported("torch", "network.pt"), "torch", ("--output", "labels")
    ),
}
INPUT_TYPE = "float32[784]"
# Long enough for all five to answer every query: how it is with late ones is figure 9's matter.
SLO_MS = 10_000
CONNECTIONS = 32
# As the paper divides the queries: by how many of the five agree with the answer.
AGREEING = (4, 5)
ENSEMBLE = "ensemble"

# ImageNet's, from the best single model to the ensemble.
PAPERS_GAIN = 0.052


def prepare() -> None:
    for model in MODELS.values():
        model.file(fashion_mnist().train)
        if model.environment:
            environment(model.environment)


def measure(bench: Bench) -> Numbers:
    """Ask the ensemble and each model alone for 10,000 images that no model has seen."""
    data = fashion_mnist()
    asked = data.test
    sizes = {name: _deploy(bench, name, model, data.train) for name, model in MODELS.items()}
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
        "sizes_bytes": sizes,
        "model_errors": {name: float(errors[f"only-{name}"].mean()) for name in MODELS},
        "ensemble_error": float(errors[ENSEMBLE].mean()),
        "agreement": [split(errors[ENSEMBLE], confidence, count) for count in AGREEING],
    }


def _deploy(bench: Bench, name: str, model: Model, train: Labelled) -> int:
    """Return the size of its file in bytes."""
    path = model.file(train)
    python = ("--python", str(environment(model.environment))) if model.environment else ()
    bench.deploy({name: path}, "--input-type", INPUT_TYPE, "--start-timeout", "110", *model.options, *python)
    return path.stat().st_size


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
    best, ensemble = min(numbers["model_errors"].values()), numbers["ensemble_error"]
    gain = 1 - ensemble / best
    four, five = numbers["agreement"]
    return Verdict(
        (
            Claim(
                f"the ensemble errs {PAPERS_GAIN:.1%} less than its best model: 0.0618 and 0.0586 on ImageNet",
                f"{gain:.1%} less: {best:.4f} and {ensemble:.4f}",
                gain >= PAPERS_GAIN / 2,
                "one of the five is clearly better than the others, and models of the same pixels err on the same "
                "pictures",
            ),
            Claim(
                "where 4 of 5 models agree the ensemble errs less than on the whole, elsewhere far more: 0.0469 and "
                "0.3182",
                _parts(four),
                _separates(four, ensemble),
                "see the table",
            ),
            Claim(
                "where all 5 agree it errs about half as much as on the whole: 0.0327 and, elsewhere, 0.1983",
                _parts(five),
                _separates(five, ensemble) and five["confident_error"] <= 0.6 * ensemble,
                "see the table",
            ),
        )
    )


def _parts(part: Mapping[str, Any]) -> str:
    return f"{_error(part['confident_error'])} and {_error(part['unsure_error'])}, which is {part['unsure_share']:.0%}"


def _error(error: float | None) -> str:
    return "no queries" if error is None else f"{error:.4f}"


def _separates(part: Mapping[str, Any], ensemble: float) -> bool:
    confident, unsure = part["confident_error"], part["unsure_error"]
    return confident is not None and unsure is not None and confident < ensemble and unsure >= 2 * ensemble


def describe(numbers: Numbers) -> str:
    rows = [
        [name, MODELS[name].framework, MODELS[name].kind, f"{size / 1e6:.1f}", f"{numbers['model_errors'][name]:.4f}"]
        for name, size in numbers["sizes_bytes"].items()
    ]
    rows.append([ENSEMBLE, "", "", "", f"{numbers['ensemble_error']:.4f}"])
    return (
        f"The models, in the place of the paper's table 2, and their errors on {numbers['queries']:,} pictures:\n\n"
        + table(["model", "framework", "kind", "file, MB", "error"], rows)
    )


FIGURE = Figure("ensembles", "figure 7: ensembles and their confidence", measure, judge, describe, prepare=prepare)
