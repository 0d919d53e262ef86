"""Beyond the paper: policies that see which models have time, over a good model that can be full and a quick one."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness.pages import table
from benchmarks.learning.served_load import SLO_MS, Round, deploy
from benchmarks.learning.simulated_load import GOOD, QUICK, possible
from benchmarks.paper.bench import Bench
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict

MODELS = (GOOD, QUICK)
# The applications: a policy over both models, or a model alone.
POLICIES = ("single", "adaptive", "thompson", "cascade")
ALONE = {f"{model.name} alone": model.name for model in MODELS}
RATES_PER_S = (25, 50, 100, 200, 400)
SECONDS = 7.0
# Of what is possible, at each rate. ``cascade`` asks the quick model for every query, and learns its threshold.
LEAST, LEAST_DEFAULTS = 0.95, 0.005
PROMISED = ("single", "adaptive", "thompson")


def measure(bench: Bench) -> Numbers:
    """Send queries at random times, with a label for each, to every policy at every rate."""
    served: dict[str, list[dict[str, float]]] = {name: [] for name in (*POLICIES, *ALONE)}
    with TemporaryDirectory(prefix="clipper-paper-") as folder:
        deploy(bench.server, Path(folder), MODELS)
        for per_s in RATES_PER_S:
            for name, rows in served.items():
                rows.append(_served(bench, name, per_s))
    return {
        "slo_ms": SLO_MS,
        "rates_per_s": RATES_PER_S,
        "models": {model.name: {"rows_per_s": round(model.per_s), "quality": model.quality} for model in MODELS},
        "possible": [round(possible(MODELS, per_s), 4) for per_s in RATES_PER_S],
        "served": served,
    }


def _served(bench: Bench, name: str, per_s: float) -> dict[str, float]:
    links = [ALONE[name]] if name in ALONE else [model.name for model in MODELS]
    policy = "single" if name in ALONE else name
    application = bench.create(f"{name.replace(' ', '-')}-{per_s}", links, slo_ms=SLO_MS, policy=policy)
    found = asyncio.run(Round(bench.server.query_url, application, 1.0, seed=1).run(per_s, SECONDS))
    bench.server.run("app", "delete", application, "--yes")
    return {
        "right_share": round(found.right / found.queries, 4),
        "default_share": round(found.defaults / found.queries, 4),
        "errors": found.errors,
    }


def judge(numbers: Numbers) -> Verdict:
    shares = {name: min(_of_possible(numbers, name)) for name in POLICIES}
    defaults = {name: max(row["default_share"] for row in numbers["served"][name]) for name in PROMISED}
    return Verdict(
        promises=(
            Claim(
                f"{' and '.join(PROMISED)} give at least {LEAST} of the right answers in time that are possible, at "
                "each rate",
                "; ".join(f"`{name}` {shares[name]:.3f}" for name in POLICIES),
                all(shares[name] >= LEAST for name in PROMISED),
            ),
            Claim(
                f"they give less than {LEAST_DEFAULTS:.1%} of defaults",
                "; ".join(f"`{name}` {share:.2%}" for name, share in defaults.items()),
                all(share < LEAST_DEFAULTS for share in defaults.values()),
            ),
        )
    )


def _of_possible(numbers: Numbers, name: str) -> list[float]:
    return [row["right_share"] / best for row, best in zip(numbers["served"][name], numbers["possible"])]


def describe(numbers: Numbers) -> str:
    rows = [["possible", *(f"{share:.3f}" for share in numbers["possible"])]]
    rows += [[_shown(name), *map(_cell, served)] for name, served in numbers["served"].items()]
    return table(["right in time", *(f"{per_s:g}/s" for per_s in numbers["rates_per_s"])], rows)


def _shown(name: str) -> str:
    return name if name in ALONE else f"`{name}`"


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['right_share']:.3f} ({row['default_share']:.1%})"


FIGURE = Figure("right_in_time", "beyond the paper: right answers in time", measure, judge, describe, is_timed=True)
