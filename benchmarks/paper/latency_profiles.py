"""Figure 3: how long a batch takes by its size, in a model's container and through the server; what 20 ms allow."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.harness.pages import table
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, connect
from benchmarks.paper.container import Container, address, encode_batch
from benchmarks.paper.data import Labelled, fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict, shows_gain
from benchmarks.paper.training import PLAIN, PLAIN_FITTED_TO, spark_linear, trained
from clipper.settings.server import MAX_BODY_BYTES
from scripts.real_models import environment

CODE = Path(__file__).parent / "models"

WITHIN_MS = 20
# At most so many rows: 50 MB of pixels.
MAX_ROWS = 8192
# Sizes double until a batch takes this long: beyond what may be asked, so that what is asked lies between two of them.
ENOUGH_MS = 2 * WITHIN_MS
# Of each size: for a second, and as many that a 99th percentile is more than a guess.
SECONDS, AT_LEAST, AT_MOST = 1.0, 40, 1000
WARM_UP_BATCHES = 3

# Through the server: nobody else asks, so that what a request of several inputs waits for is its own batch.
SERVED_WITHIN_MS = 10_000
SERVED_ROWS = 512
SERVED_TIMES = 60

PAPERS_SPREAD = 241
LEAST_LINEARITY = 0.9


def prepare() -> None:
    spark_linear(fashion_mnist().train[:PLAIN_FITTED_TO])


def measure(bench: Bench) -> Numbers:
    data = fashion_mnist()
    return profiled(bench, dict.fromkeys(_deploy(bench, data.train), data.test.inputs))


def profiled(bench: Bench, models: Mapping[str, NDArray[Any]]) -> Numbers:
    """Time batches in the container of each deployed model, and requests of as many rows, while nobody else asks.

    Args:
        models: the rows that each is asked about, by its name.
    """
    profiles, served = {}, {}
    for name, rows in models.items():
        profiles[name] = profile(address(bench.server.home, name), rows)
        served[name] = uvloop.run(_through_server(bench, name, encode_inputs(rows)))
        largest = [largest_within(rows, WITHIN_MS) for rows in (profiles[name], served[name])]
        bench.tell(f"{name:<20} {largest[0]:>5} within {WITHIN_MS} ms, {largest[1]} through the server")
    return {"within_ms": WITHIN_MS, "profiles": profiles, "served": served}


async def _through_server(bench: Bench, model: str, texts: Sequence[bytes]) -> list[dict[str, float]]:
    """The same of requests of 1, 2, 4, … inputs: from the first byte sent to the last output read."""
    application = bench.create(f"{model}-app", [model], slo_ms=SERVED_WITHIN_MS)
    connection = await connect(bench.address)
    found: list[dict[str, float]] = []
    rows, most = 1, min(SERVED_ROWS, len(texts), MAX_BODY_BYTES // len(texts[0]))
    try:
        while rows <= most and (not found or found[-1]["p50_ms"] < ENOUGH_MS):
            times_s = [await _ask_s(connection, application, texts[:rows]) for _ in range(SERVED_TIMES)]
            found.append({"rows": rows, **_describe(times_s[WARM_UP_BATCHES:])})
            rows *= 2
    finally:
        connection.close()
    return found


async def _ask_s(connection: Connection, application: str, texts: Sequence[bytes]) -> float:
    body = b'{"input_batch":[%b]}' % b",".join(texts)
    began_s = time.perf_counter()
    answer = await connection.post(f"/{application}/predict", body)
    took_s = time.perf_counter() - began_s
    if any(each["default"] for each in answer["batch_predictions"]):
        raise RuntimeError(f"{application} answers the default where it has ten seconds")
    return took_s


def _deploy(bench: Bench, train: Labelled) -> list[str]:
    bench.server.run("deploy", "no-op", "noop:predict", "--no-cache", "--input-type", "float64[784]", folder=CODE)
    files = {name: trained(make(), train[:PLAIN_FITTED_TO]) for name, make in PLAIN.items()}
    bench.deploy(files, "--no-cache")
    spark = {"spark-linear": spark_linear(train[:PLAIN_FITTED_TO])}
    bench.deploy(spark, "--no-cache", "--start-timeout", "110", "--python", str(environment("spark")))
    return ["no-op", *files, "spark-linear"]


def profile(path: str, inputs: NDArray[Any]) -> list[dict[str, float]]:
    """The container's batches of 1, 2, 4, … rows: ``rows``, ``batches``, ``p50_ms``, ``p99_ms``."""
    found: list[dict[str, float]] = []
    rows = 1
    with closing(Container(path)) as container:
        while rows <= min(MAX_ROWS, len(inputs)) and (not found or found[-1]["p50_ms"] < ENOUGH_MS):
            found.append({"rows": rows, **_describe(_time(container, inputs, rows))})
            rows *= 2
    return found


def _time(container: Container, inputs: NDArray[Any], rows: int) -> list[float]:
    frame = encode_batch(inputs[:rows])
    for _ in range(WARM_UP_BATCHES):
        container.predict_s(frame, rows)
    times_s: list[float] = []
    until_s = time.perf_counter() + SECONDS
    while len(times_s) < AT_LEAST or (time.perf_counter() < until_s and len(times_s) < AT_MOST):
        times_s.append(container.predict_s(frame, rows))
    return times_s


def _describe(times_s: Sequence[float]) -> dict[str, float]:
    p50_ms, p99_ms = np.percentile(np.array(times_s) * 1e3, [50, 99])
    return {"batches": len(times_s), "p50_ms": round(float(p50_ms), 3), "p99_ms": round(float(p99_ms), 3)}


def largest_within(rows: Sequence[dict[str, float]], within_ms: float) -> int:
    """The largest batch whose 99th percentile is within a time, between the measured sizes in proportion.

    0 if a single row takes longer; the largest measured if that does not.
    """
    found = 0
    for smaller, larger in zip([{"rows": 0, "p99_ms": 0.0}, *rows], rows):
        if larger["p99_ms"] > within_ms:
            share = max(0.0, within_ms - smaller["p99_ms"]) / (larger["p99_ms"] - smaller["p99_ms"])
            return found and int(smaller["rows"] + share * (larger["rows"] - smaller["rows"]))
        found = int(larger["rows"])
    return found


def linearity(rows: Sequence[dict[str, float]], within_ms: float) -> float:
    """The share of the medians' variance that a straight line over the size explains, of those within a time."""
    within = [(row["rows"], row["p50_ms"]) for row in rows if row["p50_ms"] <= within_ms]
    if len(within) < 3:  # any two points are on a line
        return 1.0
    sizes, medians_ms = np.array(within).T
    return float(np.corrcoef(sizes, medians_ms)[0, 1] ** 2)


def judge(numbers: Numbers) -> Verdict:
    profiles: dict[str, Any] = numbers["profiles"]
    within_ms = numbers["within_ms"]
    linear, kernel = (largest_within(profiles[name], within_ms) for name in ("linear-svm", "kernel-svm"))
    spread = linear / max(1, kernel)
    straight = min(linearity(rows, within_ms) for rows in profiles.values())
    return Verdict(
        (
            Claim(
                "the latency of a batch grows linearly with its size",
                f"a straight line explains {straight:.1%} of the medians' variance, or more, up to {within_ms} ms",
                straight >= LEAST_LINEARITY,
            ),
            Claim(
                f"the largest batches within {within_ms} ms differ {PAPERS_SPREAD} times between the linear and the "
                "kernel SVM",
                f"{spread:.0f} times: {linear:,} and {kernel:,} rows",
                shows_gain(spread, PAPERS_SPREAD),
                "the cost of a kernel SVM is that of its support vectors, and this one is fitted to 5,000 images; a "
                "container's row of 784 floats takes some time whatever the model is",
            ),
        )
    )


def describe(numbers: Numbers) -> str:
    head = ["model", "largest batch within 20 ms", "through the server", "one row, ms", "each further row, µs"]
    return table(head, [_row(name, numbers) for name in numbers["profiles"]])


def _row(name: str, numbers: Numbers) -> list[str]:
    within_ms, rows = numbers["within_ms"], numbers["profiles"][name]
    largest, served = (largest_within(numbers[kind][name], within_ms) for kind in ("profiles", "served"))
    within = [row for row in rows if row["p50_ms"] <= within_ms] or rows[:1]
    first, last = within[0], within[-1]
    more_us = (last["p50_ms"] - first["p50_ms"]) / max(1, last["rows"] - first["rows"]) * 1e3
    return [name, f"{largest:,}", f"{served:,}", f"{first['p50_ms']:.2f}", f"{more_us:,.1f}"]


FIGURE = Figure(
    "latency_profiles",
    "figure 3: latency profiles of model containers",
    measure,
    judge,
    describe,
    is_timed=True,
    prepare=prepare,
)
