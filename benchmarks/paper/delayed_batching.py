"""Figure 5: waiting a moment for more queries before a batch leaves."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.harness.pages import table
from benchmarks.paper.bench import SHARED_MODELS, Bench
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict, shows_gain
from benchmarks.paper.loads import best, offer, serve, write_inputs
from benchmarks.paper.training import PLAIN, PLAIN_FITTED_TO, trained

REQUESTS = Path(__file__).parents[1] / "yardstick" / "unique784.lua"

SLO_MS = 20
# As the paper does: whether earlier ones are answered or not.
OFFERED_PER_S = 8_000
CONNECTIONS = 64
WARM_UP_S, SECONDS = 2, 2
# The delays and the rules take turns, and each has its best round: what makes another one slower is the machine.
ROUNDS = 3
DELAYS_MS = (0, 1, 2, 4)
# The paper's rule, and Clipper's own.
RULES = ("aimd", "goodput")

PAPERS_GAIN = 3.35
LEAST_OF_DELAYED = 0.9


def measure(bench: Bench) -> Numbers:
    """Each model under both rules with each delay, one after another."""
    svm = trained(PLAIN["linear-svm"](), fashion_mnist().train[:PLAIN_FITTED_TO])
    inputs = write_inputs(bench.server.home / "pictures.jsonl")

    def deploy_stub(name: str, *options: str) -> None:
        bench.server.run("deploy", name, "stub:stub", "--input-type", "float64[784]", *options, folder=SHARED_MODELS)

    # The paper's own, and one with a millisecond a batch and 10 us a row.
    deploys: dict[str, Callable[..., None]] = {
        "linear-svm": lambda name, *options: bench.deploy_own_predict({name: svm}, *options),
        "fixed-cost": deploy_stub,
    }
    models: dict[str, Any] = {}
    for model, deploy in deploys.items():
        applications: dict[tuple[str, int], str] = {}
        for rule, delay_ms in product(RULES, DELAYS_MS):
            name = f"{model}-{rule}-{delay_ms}"
            deploy(name, "--no-cache", "--batching", rule, "--batch-delay-ms", str(delay_ms))
            application = applications[rule, delay_ms] = bench.create(f"{name}-app", [name], slo_ms=SLO_MS)
            serve(bench, application, name, REQUESTS, CONNECTIONS, WARM_UP_S)
        rounds: dict[tuple[str, int], list[Mapping[str, float]]] = {key: [] for key in applications}
        for _ in range(ROUNDS):
            for key, application in applications.items():
                name = application.removesuffix("-app")
                rounds[key].append(offer(bench, application, name, inputs, OFFERED_PER_S, SECONDS))
        models[model] = {rule: [best(rounds[rule, delay_ms]) for delay_ms in DELAYS_MS] for rule in RULES}
        for application in applications.values():
            bench.remove(application, application.removesuffix("-app"))
        bench.tell(_line(model, models[model]))
    return {
        "slo_ms": SLO_MS,
        "offered_per_s": OFFERED_PER_S,
        "rounds": ROUNDS,
        "delays_ms": DELAYS_MS,
        "models": models,
    }


def _line(name: str, found: Mapping[str, Any]) -> str:
    rates = {rule: " ".join(f"{row['outputs_per_s']:,.0f}" for row in rows) for rule, rows in found.items()}
    parts = ", ".join(f"{rule} {each}" for rule, each in rates.items())
    return f"{name:<12} outputs/s at {' '.join(map(str, DELAYS_MS))} ms: {parts}"


def judge(numbers: Numbers) -> Verdict:
    rates = {
        name: {rule: [row["outputs_per_s"] for row in rows] for rule, rows in by_rule.items()}
        for name, by_rule in numbers["models"].items()
    }
    two_ms = numbers["delays_ms"].index(2)
    gains = {name: found["aimd"][two_ms] / max(found["aimd"][0], 1.0) for name, found in rates.items()}
    undelayed = {name: found["goodput"][0] / max(*found["aimd"], 1.0) for name, found in rates.items()}
    svm = rates["linear-svm"]["aimd"]
    offered = f"of {numbers['offered_per_s']:,} offered queries/s"
    return Verdict(
        (
            Claim(
                f"{offered} scikit-learn's linear SVM answers {PAPERS_GAIN} times as many with a delay of 2 ms as "
                "without one: 18,454 and 5,510",
                f"{gains['linear-svm']:.2f} times: {svm[two_ms]:,.0f} and {svm[0]:,.0f}; a model with a fixed cost of "
                f"1 ms a batch {gains['fixed-cost']:.2f}",
                shows_gain(gains["linear-svm"], PAPERS_GAIN),
                "without a delay nearly all offered queries are answered already: those that come while a batch runs "
                "make the next one, so batches are as large as the load needs. The paper's prototype sent batches of "
                "5.7 queries at a time where its delay made 36.8",
            ),
        ),
        (
            Claim(
                f"goodput without a delay answers at least {LEAST_OF_DELAYED} of what AIMD does with the best delay",
                ", ".join(f"{name} {each:.2f}" for name, each in undelayed.items()),
                min(undelayed.values()) >= LEAST_OF_DELAYED,
            ),
        ),
    )


def describe(numbers: Numbers) -> str:
    rows = [
        [
            name,
            f"`{rule}`",
            *(f"{row['outputs_per_s']:,.0f} ({row['p50_ms']:.1f}; {row['mean_batch']:.0f})" for row in found),
        ]
        for name, by_rule in numbers["models"].items()
        for rule, found in by_rule.items()
    ]
    delays = [f"{delay_ms} ms" for delay_ms in numbers["delays_ms"]]
    title = (
        "Outputs a second in time, and in brackets the median latency in ms and the mean batch, each of the best of "
        f"{numbers['rounds']} rounds, in which rules and delays took turns:\n\n"
    )
    return title + table(["model", "rule", *delays], rows)


FIGURE = Figure("delayed_batching", "figure 5: delayed batching", measure, judge, describe, is_timed=True)
