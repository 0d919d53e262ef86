"""Rows on load that does not wait for answers: which share is answered with a default, and how late, by load and model.

Wrk's connections wait, so it asks a slow server less, and never again for what was dropped. Users do not.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import texts
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import HERE, SLO_MS, Workbench
from benchmarks.rows.frameworks import TABLE
from clipper.cli.load.report import Run, share, why_too_slow
from scripts.real_models import environment, exported

BODIES = HERE / "bodies.lua"

# Cold is from a deployment on: nothing is known of the model's times. Warm is the same load, some seconds later.
COLD_S, WARM_S = 4.0, 4.0
# Of what can be done: a quarter of it, the half, nearly all, and more than that.
LOADS = (0.25, 0.5, 0.9, 1.5)
# Up to this load, the largest share that is not answered by the model.
MOST_UNANSWERED = {0.25: 0.001, 0.5: 0.001, 0.9: 0.01}
# Of a model whose rate is not known beforehand.
LOADS_OF_SATURATION = (0.5, 0.9)
SATURATED = 128
SATURATE_S = 2


@dataclass(frozen=True, slots=True)
class Times:
    """How long the model sleeps."""

    batch_s: float
    row_s: float
    slow_share: float = 0.0
    slow_row_s: float = 0.0

    def cap_per_s(self, slo_s: float) -> float:
        """What it can do if no query waits longer than for one batch: n in half of the SLO, for the largest n."""
        row_s = self.row_s * (1 - self.slow_share) + self.slow_row_s * self.slow_share
        return (slo_s / 2 - self.batch_s) / row_s / (slo_s / 2)


SLEPT = {
    "slept_40ms": (Times(40e-3, 50e-6), 100),
    "slept_450ms": (Times(450e-3, 1e-3), 1000),
    "slept_10ms": (Times(10e-3, 50e-6), 30),
    "slept_3ms": (Times(3e-3, 28e-6), 20),
    "slept_unequal": (Times(0.0, 0.2e-3, 0.03, 20e-3), 100),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model that computes.

    Attributes:
        deploy: what ``clipper deploy`` is told of it, besides its name.
        bodies: writes a file of what it is asked. By the same the rate is found at which it is saturated: a body of
            18 digits a number costs twice what one of four does.
    """

    what: str
    slo_ms: int
    deploy: Callable[[Workbench], list[str]]
    bodies: Callable[[Path], Path]


def onnx_digits(bench: Workbench) -> list[str]:
    path = exported("onnx_digits", "onnx", TABLE[0]) / "network.onnx"
    return [str(path), "--python", str(environment("onnx")), "--output", "labels", "--no-cache"]


def write_digits(folder: Path) -> Path:
    path = folder / "digits.jsonl"
    images = np.loadtxt(TABLE[0], delimiter=",")[:, :64]
    path.write_text("".join(json.dumps({"input": image.tolist()}) + "\n" for image in images))
    return path


def write_pixels(folder: Path) -> Path:
    path = folder / "pixels.jsonl"
    rows = np.random.default_rng(0).random((2000, 784))
    path.write_text("".join('{{"input":[{}]}}\n'.format(",".join(f"{pixel:.4f}" for pixel in row)) for row in rows))
    return path


MODELS = {
    "linear_svm": Model(
        "linear SVM on 784 floats",
        SLO_MS,
        lambda bench: [str(bench.model_file("linear_svm")), "--no-cache"],
        write_pixels,
    ),
    "random_forest": Model(
        "forest of 100 on 784 floats",
        SLO_MS,
        lambda bench: [str(bench.model_file("random_forest")), "--no-cache"],
        write_pixels,
    ),
    "topics": Model(
        "tf-idf and a linear SVM on texts of 10 to 10,000 characters",
        100,
        lambda bench: [str(texts.train(bench.folder)), "--input-type", "string", "--no-cache"],
        texts.write_bodies,
    ),
    "onnx_digits": Model("a network on 64 floats as ONNX", SLO_MS, onnx_digits, write_digits),
}


def slept(name: str, load: float) -> Row:
    times, slo_ms = SLEPT[name]
    cap_per_s = times.cap_per_s(slo_ms / 1e3)

    def measure(bench: Workbench) -> Outcome:
        data = bench.folder / f"{name}.json"
        data.write_text(json.dumps(asdict(times)))
        application = deploy(bench, name, load, slo_ms, ["slept:Slept", "--data", str(data)])
        outcome = cold_and_warm(bench, application, load, cap_per_s * load, {"cap_per_s": cap_per_s})
        remove(bench, application)
        return outcome

    return Row(row_name(name, load), f"{load:g} of {cap_per_s:,.0f}/s, SLO {slo_ms} ms", floor(load), measure)


def computed(name: str, load: float) -> Row:
    model = MODELS[name]

    def measure(bench: Workbench) -> Outcome:
        bodies = model.bodies(bench.folder)
        application = deploy(bench, name, load, model.slo_ms, model.deploy(bench))
        saturated = bench.serve(application, BODIES, connections=SATURATED, seconds=SATURATE_S, bodies=bodies)
        per_s = saturated.outputs_per_s
        remove(bench, application)
        # Again, so that the first of the loads meets it cold.
        application = deploy(bench, name, load, model.slo_ms, model.deploy(bench))
        outcome = cold_and_warm(
            bench, application, load, per_s * load, {"saturated_per_s": per_s}, "--inputs", str(bodies)
        )
        remove(bench, application)
        return outcome

    return Row(row_name(name, load), f"{load:g} of saturation, {model.what}", floor(load), measure)


def row_name(name: str, load: float) -> str:
    return f"open_loop_{name}_{load * 100:.0f}"


def floor(load: float) -> str:
    if load not in MOST_UNANSWERED:
        return "tells"
    return f"< {MOST_UNANSWERED[load]:.1%} unanswered, p99 ≤ SLO"


def deploy(bench: Workbench, name: str, load: float, slo_ms: int, model: list[str]) -> str:
    application = row_name(name, load).replace("_", "-")
    bench.server.deploy(application, *model, slo_ms=slo_ms)
    return application


def remove(bench: Workbench, application: str) -> None:
    """So that nothing of it runs beside the next."""
    bench.server.run("app", "delete", application, "--yes")
    bench.server.run("model", "delete", application)


def cold_and_warm(
    bench: Workbench, application: str, load: float, rate_per_s: float, numbers: dict[str, object], *options: str
) -> Outcome:
    cold, warm = (bench.server.load(application, rate_per_s, seconds, *options) for seconds in (COLD_S, WARM_S))
    return outcome(load, cold, warm, numbers | {"rate_per_s": rate_per_s})


def outcome(load: float, cold: Run, warm: Run, numbers: dict[str, object]) -> Outcome:
    runs = {"cold": cold, "warm": warm}
    passed = all(meets(load, run) for run in runs.values()) if load in MOST_UNANSWERED else None
    value = "; ".join(f"{name} {describe(run)}" for name, run in runs.items())
    return Outcome(value, passed, numbers | {name: facts(run) for name, run in runs.items()})


def meets(load: float, run: Run) -> bool:
    latency = run.latency_ms
    return latency is not None and latency.p99 <= run.slo_ms and unanswered(run) < MOST_UNANSWERED[load]


def unanswered(run: Run) -> float:
    """The share that no model answered, for whatever reason."""
    return 1 - share(run.by_model, run)


def describe(run: Run) -> str:
    p99 = "-" if run.latency_ms is None else f"{run.latency_ms.p99:.1f}"
    slow = "" if why_too_slow(run) is None else " (load generator too slow)"
    return f"{unanswered(run):.2%} unanswered, p99 {p99} ms{slow}"


def facts(run: Run) -> dict[str, object]:
    return {
        "offered": run.offered,
        "goodput_per_s": run.goodput_per_s,
        "unanswered_share": unanswered(run),
        "defaults": run.defaults,
        "errors": run.errors,
        "not_sent": run.not_sent,
        "p50_ms": run.latency_ms and run.latency_ms.p50,
        "p99_ms": run.latency_ms and run.latency_ms.p99,
        "lag_p99_ms": run.sender.lag_ms and run.sender.lag_ms.p99,
        "unanswered_by_second": [round(1 - each.by_model / max(1, each.offered), 4) for each in run.seconds],
    }


ROWS = [
    *(slept(name, load) for name in SLEPT for load in LOADS),
    *(computed(name, load) for name in MODELS for load in LOADS_OF_SATURATION),
]
