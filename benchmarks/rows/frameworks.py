"""Rows on models of each framework: what serving one costs, over calling it in a loop in a process of its own."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import HERE, ROUND_S, WARM_UP_S, Served, Workbench, median_ratio
from clipper.client.packaging.frameworks import recognise
from clipper.supervisor.managers.environments.builder import BUILD_TIMEOUT_S
from scripts.real_models import environment, exported

BODIES = HERE / "bodies.lua"
PROGRAM = HERE / "rows" / "in_process.py"

# Of the in-process side counts the one that is fastest.
BATCHES = (1, 8, 32)
# No answer is to be the default: what is asked for is all that the model can.
SLO_MS = 2000
MAX_BODIES = 64


@dataclass(frozen=True, slots=True)
class Case:
    """A model of a framework.

    Attributes:
        export: the name of what makes it, and what that reads.
        environment: the one that the model runs in; None: what ``clipper deploy`` reads from the file and builds.
        model, inputs: names in the export's folder.
        connections: enough to keep the model busy.
        floor: the least share of the in-process rate; None where the row only tells.
    """

    name: str
    what: str
    export: tuple[str, str, tuple[Path, ...]]
    environment: str | None
    model: str
    inputs: str
    connections: int
    floor: float | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        name, made_in, reads = self.export
        return exported(name, made_in, *reads)


def over_in_process(case: Case) -> Row:
    def measure(bench: Workbench) -> Outcome:
        python = deploy(bench, case)
        bodies = write_bodies(case, bench.folder)

        def served(connections: int, seconds: int = ROUND_S) -> Served:
            return bench.serve(case.name, BODIES, connections=connections, seconds=seconds, bodies=bodies)

        with in_process(case, python, bench.folder) as loop:
            served(case.connections, WARM_UP_S)
            single, call_per_s, saturated, best = bench.compare(
                lambda: served(1).load.p50_ms,
                lambda: loop.rows_per_s(1),
                lambda: served(case.connections).outputs_per_s,
                lambda: max(loop.rows_per_s(rows) for rows in BATCHES),
            )
        # A network that is idle still has its memory, and some have threads that wake.
        bench.server.run("app", "delete", case.name, "--yes")
        bench.server.run("model", "delete", case.name)
        return outcome(case, single, call_per_s, saturated, best)

    floor = "tells" if case.floor is None else f"≥ {case.floor} ×"
    return Row(case.name, case.what, floor, measure)


def outcome(
    case: Case, single_ms: list[float], call_per_s: list[float], saturated: list[float], best: list[float]
) -> Outcome:
    overhead_us = median(1000 * ms - 1e6 / rate for ms, rate in zip(single_ms, call_per_s))
    ratio = median_ratio(saturated, best)
    numbers = {
        "ratio": ratio,
        "overhead_us": overhead_us,
        "clipper_p50_ms": single_ms,
        "call_ms": [1000 / rate for rate in call_per_s],
        "clipper_per_s": saturated,
        "in_process_per_s": best,
    }
    passed = None if case.floor is None else ratio >= case.floor
    return Outcome(f"{ratio:.2f} ×, + {overhead_us:.0f} µs", passed, numbers)


def deploy(bench: Workbench, case: Case) -> Path:
    """Serve the model; return the interpreter that it runs in."""
    options = [text for name, value in case.options.items() for text in (f"--{name.replace('_', '-')}", value)]
    if case.environment is not None:
        options += ["--python", str(environment(case.environment))]
    options += ["--no-cache", "--start-timeout", "120"]
    path = str(case.folder / case.model)
    version = bench.server.run("deploy", case.name, path, *options, within_s=BUILD_TIMEOUT_S)
    bench.server.run("app", "create", case.name, "--model", case.name, "--slo-ms", str(SLO_MS))
    [replica] = version["replicas"]
    return Path(Path(f"/proc/{replica['pid']}/cmdline").read_text().split("\0")[0])


def write_bodies(case: Case, folder: Path) -> Path:
    path = folder / f"{case.name}.jsonl"
    inputs = np.load(case.folder / case.inputs)[:MAX_BODIES]
    values = [base64.b64encode(row).decode() if row.dtype == np.uint8 else row.tolist() for row in inputs]
    path.write_text("".join(json.dumps({"input": value}, separators=(",", ":")) + "\n" for value in values))
    return path


@dataclass(frozen=True, slots=True)
class Loop:
    process: "subprocess.Popen[str]"

    def rows_per_s(self, rows: int) -> float:
        """Call the model with so many rows at once, for a part of a round that all sizes share."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{rows} {ROUND_S / len(BATCHES)}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextmanager
def in_process(case: Case, python: Path, folder: Path) -> Iterator[Loop]:
    """A process that has loaded the model, and computes only while it is asked to."""
    framework = recognise(case.folder / case.model)
    source = {"artifact": str(case.folder), "loader": "file", "target": case.model, "framework": framework}
    command = [str(python), str(PROGRAM), json.dumps(source | case.options)]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent / "src")}
    with subprocess.Popen(
        [*command, str(case.folder / case.inputs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environ,
        text=True,
    ) as process:
        yield Loop(process)


def sample(package: str, name: str) -> Path:
    """A file that comes with a package."""
    return Path(str(find_spec(package).origin)).parent / name  # type: ignore[union-attr]


PHOTOS = tuple(sample("sklearn", f"datasets/images/{name}.jpg") for name in ("china", "flower"))
PORTRAIT = (sample("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),)
TABLE = (sample("sklearn", "datasets/data/digits.csv.gz"),)
EFFICIENTNET = ("efficientnet", "torch", PHOTOS)
FACES = ("face_detector", "caffe", PORTRAIT)
DIGITS = ("digit_networks", "tensorflow", TABLE)
TREES = ("xgboost_digits", "xgboost", TABLE)
LABELS = {"output": "labels"}
PICTURES = {"input_type": "uint8[3,224,224]", **LABELS}

CASES = [
    Case("efficientnet_onnx", "EfficientNet-lite0 as ONNX, pictures of 224 × 224", EFFICIENTNET, "onnx",
         "of_pictures.onnx", "pictures.npy", 4, floor=0.95, options=LABELS),
    Case("efficientnet_torchscript", "the same as TorchScript", EFFICIENTNET, "torch",
         "network.pt", "pictures.npy", 4, options=PICTURES),
    Case("faces_caffe", "Caffe's face detector res10, pictures of 300 × 300", FACES, None,
         "of_pictures", "pictures.npy", 4, options={"input_type": "uint8[3,300,300]"}),
    Case("digits_keras", "a convolutional net on 8 × 8 digits, Keras", DIGITS, "tensorflow",
         "network.keras", "inputs.npy", 32, options=LABELS),
    Case("digits_tensorflow", "the same as a SavedModel", DIGITS, "tensorflow",
         "network", "inputs.npy", 32, options=LABELS),
    Case("forest_sklearn", "scikit-learn's forest of 100 on digits", TREES, "xgboost",
         "forest.joblib", "inputs.npy", 64),
    Case("digits_xgboost", "XGBoost, 50 rounds on digits", TREES, "xgboost",
         "boosted.ubj", "inputs.npy", 64, options=LABELS),
    Case("digits_lightgbm", "the same of LightGBM", ("lightgbm_digits", "lightgbm", TABLE), "lightgbm",
         "boosted.txt", "inputs.npy", 64, options=LABELS),
    Case("digits_mlflow", "scikit-learn's scaler and logistic regression, as MLflow's folder",
         ("mlflow_digits", "mlflow", TABLE), None, "digits", "inputs.npy", 64),
    Case("digits_hmmlearn", "ten hidden Markov models of digits as sequences, hmmlearn",
         ("hmm_digits", "hmmlearn", TABLE), None, "digits.pkl", "inputs.npy", 32),
    Case("logistic_spark", "Spark's logistic regression on 692 numbers", ("spark_models", "spark", ()), "spark",
         "logistic", "inputs.npy", 32),
]  # fmt: skip
ROWS = [over_in_process(case) for case in CASES]
