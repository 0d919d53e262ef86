"""Figure 4: what batches are worth, and how the paper's two rules and Clipper's own find their size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.paper.bench import MODELS as CODE
from benchmarks.paper.bench import Bench
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.loads import serve
from benchmarks.paper.training import PLAIN, PLAIN_FITTED_TO, trained

# Every request differs, so that no cache could answer it.
REQUESTS = Path(__file__).parents[1] / "yardstick" / "unique784.lua"

SLO_MS = 20
CONNECTIONS = 128
WARM_UP_S, SECONDS = 2, 3
# One query at a time, the paper's two rules, and what Clipper does where nothing is said.
RULES = ("none", "aimd", "quantile", "goodput")
NO_OP = "no-op"

# Of one query at a time: a forest's batch of 64 takes hardly longer than a row, in scikit-learn's own ``predict``.
LEAST_FOREST_GAIN = 20
LEAST_OF_BEST = 0.9


def measure(bench: Bench) -> Numbers:
    """Each model under each rule, one after another."""
    train = fashion_mnist().train[:PLAIN_FITTED_TO]
    models: dict[str, Any] = {}
    for name in (NO_OP, *PLAIN):
        path = None if name == NO_OP else trained(PLAIN[name](), train)
        models[name] = {rule: _measure(bench, name, path, rule) for rule in RULES}
        bench.tell(_line(name, models[name]))
    return {"slo_ms": SLO_MS, "connections": CONNECTIONS, "seconds": SECONDS, "models": models}


def _measure(bench: Bench, name: str, path: Path | None, rule: str) -> Mapping[str, float]:
    """Deployed for it, and removed after: idle containers would take memory."""
    deployed = f"{name}-{rule}"
    options = ("--no-cache", "--batching", rule)
    if path is None:
        bench.server.run("deploy", deployed, "noop:predict", "--input-type", "float64[784]", *options, folder=CODE)
    else:
        bench.deploy_own_predict({deployed: path}, *options)
    application = bench.create(f"{deployed}-app", [deployed], slo_ms=SLO_MS)
    try:
        serve(bench, application, deployed, REQUESTS, CONNECTIONS, WARM_UP_S)
        return serve(bench, application, deployed, REQUESTS, CONNECTIONS, SECONDS)
    finally:
        bench.remove(application, deployed)


def _line(name: str, found: Mapping[str, Mapping[str, float]]) -> str:
    parts = [f"{rule} {row['outputs_per_s']:,.0f}/s ({row['p99_ms']:.1f} ms)" for rule, row in found.items()]
    return f"{name:<20} {', '.join(parts)}"


def judge(numbers: Numbers) -> Verdict:
    models = numbers["models"]
    gains = {name: gain(found) for name, found in models.items()}
    of_best = {
        name: rate(found, "goodput") / max(rate(found, rule) for rule in RULES) for name, found in models.items()
    }
    text = (
        f"batches over one query at a time: {', '.join(f'{name} {each:.1f} ×' for name, each in gains.items())}; "
        f"goodput at least {min(of_best.values()):.2f} of the best rule"
    )
    return Verdict(text, gains["random-forest"] >= LEAST_FOREST_GAIN and min(of_best.values()) >= LEAST_OF_BEST)


def gain(found: Mapping[str, Mapping[str, float]]) -> float:
    """Of Clipper's own rule over one query at a time."""
    return rate(found, "goodput") / max(rate(found, "none"), 1e-9)


def rate(found: Mapping[str, Mapping[str, float]], rule: str) -> float:
    return found[rule]["outputs_per_s"]


FIGURE = Figure("batching_gain", "figure 4: batches, and the rules that find their size", measure, judge, is_timed=True)
