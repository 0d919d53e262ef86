"""Rows on requests/s and latency under wrk, as ratios to the yardstick of the same run."""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import wrk
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import (
    EQUAL_PIXELS,
    FOUR,
    PIXELS,
    ROUNDS,
    SLO_MS,
    TURN_S,
    TURNS,
    WARM_UP_S,
    Served,
    Workbench,
    median_ratio,
)

SATURATED = 128
DELAY_MS = 2
MODELS = {"sum": FOUR, "linear_svm": PIXELS, "logistic_regression": PIXELS, "random_forest": PIXELS}


def sum4_c32(bench: Workbench) -> Outcome:
    application = warmed(bench, "sum", FOUR, connections=32)
    ours, theirs, echo = bench.compare(
        lambda: bench.serve(application, FOUR, connections=32, seconds=TURN_S).outputs_per_s,
        lambda: requests_per_s(bench.yardstick_url, FOUR),
        lambda: requests_per_s(bench.echo_url, FOUR),
        rounds=TURNS,
    )
    ratio, of_echo = median_ratio(ours, theirs), median_ratio(ours, echo)
    numbers = {"clipper_per_s": ours, "yardstick_per_s": theirs, "echo_per_s": echo, "ratio": ratio, "of_echo": of_echo}
    return Outcome(f"{ratio:.2f} ×, {of_echo:.2f} × echo", ratio >= 0.60 and of_echo >= 0.25, numbers)


def linear_svm_c32(bench: Workbench) -> Outcome:
    return against_yardstick(bench, "linear_svm", PIXELS, floor=0.60)


def cache_hits_c32(bench: Workbench) -> Outcome:
    return against_yardstick(bench, "linear_svm", EQUAL_PIXELS, floor=1.0)


def against_yardstick(bench: Workbench, model: str, script: Path, floor: float) -> Outcome:
    application = warmed(bench, model, script, connections=32)
    ours, theirs = bench.compare(
        lambda: bench.serve(application, script, connections=32, seconds=TURN_S).outputs_per_s,
        lambda: requests_per_s(bench.yardstick_url, PIXELS),
        rounds=TURNS,
    )
    ratio = median_ratio(ours, theirs)
    numbers = {"clipper_per_s": ours, "yardstick_per_s": theirs, "ratio": ratio}
    return Outcome(f"{ratio:.2f} ×", ratio >= floor, numbers)


def single_connection(bench: Workbench) -> Outcome:
    application = warmed(bench, "sum", FOUR, connections=1)
    ours, theirs = bench.compare(
        lambda: bench.serve(application, FOUR, connections=1, seconds=TURN_S).load.p50_ms,
        lambda: wrk.run(bench.yardstick_url, FOUR, connections=1, seconds=TURN_S).p50_ms,
        rounds=TURNS,
    )
    ratio = median_ratio(ours, theirs)
    numbers = {"clipper_p50_ms": ours, "yardstick_p50_ms": theirs, "ratio": ratio}
    return Outcome(f"{ratio:.2f} ×, {median(ours):.3f} ms", ratio <= 2.0, numbers)


def p99_saturated(model: str) -> Row:
    def measure(bench: Workbench) -> Outcome:
        application = warmed(bench, model, MODELS[model], connections=SATURATED)
        rounds = [bench.serve(application, MODELS[model], connections=SATURATED) for _ in range(ROUNDS)]
        p99_ms, share = tail(rounds)
        passed = p99_ms <= SLO_MS and share < 0.01
        return Outcome(f"{p99_ms:.1f} ms, {share:.2%} defaults", passed, describe(rounds))

    return Row(
        f"p99_{model}",
        f"p99 at {SATURATED} connections: {model}",
        f"≤ {SLO_MS} ms, < 1 % defaults",
        measure,
    )


def forest_batching_over_none(bench: Workbench) -> Outcome:
    # The floor is for what one row costs scikit-learn's own predict. By the runtime it costs far less: that only tells.
    own, bare = (batching_over_none(bench, model) for model in ("random_forest_own_predict", "random_forest"))
    value = f"{own['ratio']:.1f} ×; deployed bare {bare['ratio']:.1f} ×"
    return Outcome(value, own["ratio"] >= 20, {**own, "deployed_bare": bare})


def batching_over_none(bench: Workbench, model: str) -> dict[str, Any]:
    batching = warmed(bench, model, PIXELS, connections=SATURATED)
    none = warmed(bench, model, PIXELS, connections=SATURATED, batching="none")
    with_batching, with_none = bench.compare(
        lambda: bench.serve(batching, PIXELS, connections=SATURATED).outputs_per_s,
        lambda: bench.serve(none, PIXELS, connections=SATURATED).outputs_per_s,
    )
    return {"batching_per_s": with_batching, "none_per_s": with_none, "ratio": median_ratio(with_batching, with_none)}


def quantile_refit_against_aimd_damped(model: str) -> Row:
    def measure(bench: Workbench) -> Outcome:
        script = MODELS[model]
        seen: dict[str, list[Served]] = {"quantile_refit": [], "aimd_damped": []}
        names = {batching: warmed(bench, model, script, connections=SATURATED, batching=batching) for batching in seen}
        for _ in range(ROUNDS):
            for batching, name in names.items():
                seen[batching].append(bench.serve(name, script, connections=SATURATED))
        rates = {batching: [served.outputs_per_s for served in rounds] for batching, rounds in seen.items()}
        ratio = median_ratio(rates["quantile_refit"], rates["aimd_damped"])
        passed = abs(ratio - 1) <= 0.15 and all(meets_slo(rounds) for rounds in seen.values())
        numbers = {"ratio": ratio, **{batching: describe(rounds) for batching, rounds in seen.items()}}
        return Outcome(f"{ratio:.2f} ×, p99 {tail(seen['quantile_refit'])[0]:.1f} ms", passed, numbers)

    return Row(f"quantile_{model}", f"quantile_refit over aimd_damped: {model}", "1 ± 0.15 ×, both ≤ 20 ms", measure)


def batch_delay(bench: Workbench) -> Outcome:
    at_once = warmed(bench, "stub", FOUR, connections=64)
    delayed = warmed(bench, "stub", FOUR, connections=64, delay_ms=DELAY_MS)
    with_delay, without = bench.compare(
        lambda: bench.serve(delayed, FOUR, connections=64).outputs_per_s,
        lambda: bench.serve(at_once, FOUR, connections=64).outputs_per_s,
    )
    ratio = median_ratio(with_delay, without)
    numbers = {"delayed_per_s": with_delay, "at_once_per_s": without, "ratio": ratio}
    return Outcome(f"{ratio:.2f} ×", None, numbers)


def warmed(
    bench: Workbench,
    model: str,
    script: Path,
    *,
    connections: int,
    batching: str = "goodput",
    delay_ms: float = 0,
) -> str:
    """The application of a model with these settings, after some seconds of the load that will be measured."""
    application = bench.application(model, batching, delay_ms)
    bench.serve(application, script, connections=connections, seconds=WARM_UP_S)
    return application


def requests_per_s(url: str, script: Path) -> float:
    return wrk.run(url, script, connections=32, seconds=TURN_S).requests_per_s


def tail(rounds: list[Served]) -> tuple[float, float]:
    """The median round's p99 in ms, and the share of defaults over all rounds."""
    return median(served.load.p99_ms for served in rounds), sum(served.default_share for served in rounds) / len(rounds)


def meets_slo(rounds: list[Served]) -> bool:
    p99_ms, share = tail(rounds)
    return p99_ms <= SLO_MS and share < 0.01


def describe(rounds: list[Served]) -> dict[str, object]:
    return {
        "outputs_per_s": [round(served.outputs_per_s, 1) for served in rounds],
        "p50_ms": [served.load.p50_ms for served in rounds],
        "p99_ms": [served.load.p99_ms for served in rounds],
        "default_share": [round(served.default_share, 5) for served in rounds],
    }


ROWS = [
    Row("sum4_c32", "sum of 4 floats, 32 connections", "≥ 0.60 ×, ≥ 0.25 × echo", sum4_c32),
    Row("linear_svm_c32", "linear SVM on 784 floats, 32 connections", "≥ 0.60 ×", linear_svm_c32),
    Row("cache_hits_c32", "equal queries, over unique ones of the yardstick", "≥ 1.0 ×", cache_hits_c32),
    Row("single_connection", "p50 of one connection, 4 floats", "≤ 2 ×", single_connection),
    *(p99_saturated(model) for model in MODELS),
    Row(
        "forest_batching_over_none",
        "forest's own predict: batching over none, real outputs",
        "≥ 20 ×",
        forest_batching_over_none,
    ),
    *(quantile_refit_against_aimd_damped(model) for model in MODELS),
    Row("batch_delay", "1 ms + 10 µs a row, 64 connections: delay 2 ms over 0", "tells", batch_delay),
]
