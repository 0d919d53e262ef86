"""Figure 5: waiting a moment for more queries before a batch leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.paper.bench import MODELS as CODE
from benchmarks.paper.bench import SHARED_MODELS, Bench
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.loads import serve

REQUESTS = Path(__file__).parents[1] / "yardstick" / "unique4.lua"

SLO_MS = 20
CONNECTIONS = 64
WARM_UP_S, SECONDS = 2, 3
DELAYS_MS = (0, 1, 2, 4)
# The paper's rule, which sends what is there, and Clipper's own, which waits for clients that ask again.
RULES = ("aimd", "goodput")
# A millisecond a batch and 10 us a row; and no time at all, where waiting cannot help.
MODELS = {"fixed-cost": ("stub:stub", SHARED_MODELS), "no-op": ("noop:predict", CODE)}


def measure(bench: Bench) -> Numbers:
    """Each model under both rules with each delay, one after another."""
    models: dict[str, Any] = {}
    for name in MODELS:
        models[name] = {rule: [_measure(bench, name, rule, delay_ms) for delay_ms in DELAYS_MS] for rule in RULES}
        bench.tell(_line(name, models[name]))
    return {"slo_ms": SLO_MS, "connections": CONNECTIONS, "delays_ms": DELAYS_MS, "models": models}


def _measure(bench: Bench, name: str, rule: str, delay_ms: float) -> Mapping[str, float]:
    target, folder = MODELS[name]
    deployed = f"{name}-{rule}-{delay_ms}"
    options = ("--no-cache", "--batching", rule, "--batch-delay-ms", str(delay_ms), "--input-type", "doubles")
    bench.server.run("deploy", deployed, target, *options, folder=folder)
    application = bench.create(f"{deployed}-app", [deployed], slo_ms=SLO_MS)
    try:
        serve(bench, application, deployed, REQUESTS, CONNECTIONS, WARM_UP_S)
        return serve(bench, application, deployed, REQUESTS, CONNECTIONS, SECONDS)
    finally:
        bench.remove(application, deployed)


def _line(name: str, found: Mapping[str, Any]) -> str:
    rates = {rule: " ".join(f"{row['outputs_per_s']:,.0f}" for row in rows) for rule, rows in found.items()}
    parts = ", ".join(f"{rule} {each}" for rule, each in rates.items())
    return f"{name:<12} outputs/s at {' '.join(map(str, DELAYS_MS))} ms: {parts}"


def judge(numbers: Numbers) -> Verdict:
    """A delay pays under the paper's rule where a batch has a fixed cost; Clipper's own needs none."""
    fixed = {rule: [row["outputs_per_s"] for row in rows] for rule, rows in numbers["models"]["fixed-cost"].items()}
    by_delay = max(fixed["aimd"]) / fixed["aimd"][0]
    undelayed = fixed["goodput"][0] / max(fixed["aimd"])
    text = (
        f"a fixed cost a batch: the best delay gives aimd {by_delay:.2f} × its outputs/s without one; "
        f"goodput without any {undelayed:.2f} × that"
    )
    return Verdict(text, undelayed >= 0.9)


FIGURE = Figure("delayed_batching", "figure 5: delayed batching", measure, judge, is_timed=True)
