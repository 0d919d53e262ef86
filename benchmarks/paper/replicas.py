"""Figure 6: how throughput grows with replicas."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import uvloop

from benchmarks.harness.load import Answer, LoadClient, post
from benchmarks.harness.pages import table
from benchmarks.paper.bench import MODELS, Bench
from benchmarks.paper.client import Address
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict

COUNTS = (1, 2, 3, 4)
# A bound on batches, so that those of many replicas are not larger than those of one: for each replica two of them and
# some clients more, so that it never waits for queries. That takes a query some 70 ms.
SLO_MS = 200
MAX_BATCH = 28
CONNECTIONS_A_REPLICA = 64
WARM_UP_S = 4.0
SECONDS = 8.0

LEAST_SPEED_UP = 3.8
LEAST_LINEARITY = 0.9
MOST_P99_GROWTH = 1.25


def measure(bench: Bench) -> Numbers:
    """Of a model that waits."""
    options = ("--input-type", "doubles", "--no-cache", "--max-batch", str(MAX_BATCH))
    bench.server.run("deploy", "waiting", "waiting:predict", *options, folder=MODELS)
    bench.create("waiting", ["waiting"], slo_ms=SLO_MS)
    rows = scaled(bench, "waiting", COUNTS, count_requests())
    return {"slo_ms": SLO_MS, "connections_a_replica": CONNECTIONS_A_REPLICA, "seconds": SECONDS, "counts": rows}


def scaled(
    bench: Bench, model: str, counts: Sequence[int], requests: Iterator[bytes], seconds: float = SECONDS
) -> list[dict[str, Any]]:
    """For each number of replicas of a deployed model, as many clients for each of them."""
    rows = []
    for count in counts:
        bench.server.run("model", "scale", model, str(count))
        connections = CONNECTIONS_A_REPLICA * count
        load(bench.address, connections, WARM_UP_S, requests)
        row = {"replicas": count, **describe(load(bench.address, connections, seconds, requests), seconds)}
        bench.tell(f"{count} replicas: {row['outputs_per_s']:,.0f} outputs/s, p99 {row['p99_ms']:.1f} ms")
        rows.append(row)
    return rows


def load(address: Address, connections: int, seconds: float, requests: Iterator[bytes]) -> list[Answer[None]]:
    """Send one request after another on each connection; return all answers."""
    answers: list[Answer[None]] = []
    client = LoadClient[None](*address, connections, lambda: (None, next(requests)), answers.append)
    uvloop.run(client.run_for(seconds))
    return answers


def count_requests() -> Iterator[bytes]:
    """Requests of which no two ask the same."""
    for number in itertools.count():
        yield post("/waiting/predict", b'{"input":[%d]}' % number)


def describe(answers: Sequence[Answer[None]], seconds: float) -> dict[str, Any]:
    """Outputs a second, and latencies of all answers in ms."""
    latencies_ms = np.array([answer.latency_s * 1e3 for answer in answers])
    outputs = sum(answer.status == 200 and b'"default":false' in answer.body for answer in answers)
    return {
        "outputs_per_s": round(outputs / seconds, 1),
        "default_share": round(1 - outputs / len(answers), 5),
        "mean_ms": round(float(latencies_ms.mean()), 2),
        "p99_ms": round(float(np.percentile(latencies_ms, 99)), 2),
    }


def judge(numbers: Numbers) -> Verdict:
    first, *others = rows = numbers["counts"]
    speed_ups = [row["outputs_per_s"] / first["outputs_per_s"] for row in others]
    growth = max(row["p99_ms"] for row in others) / first["p99_ms"]
    missed = max(row["default_share"] for row in rows)
    return Verdict(
        (
            Claim(
                "over 10 Gbit/s the throughput of four replicas is 3.95 times that of one",
                f"{speed_ups[-1]:.2f} times, on one machine",
                speed_ups[-1] >= LEAST_SPEED_UP,
                "two cores did not keep up with the clients, the worker and four containers",
            ),
            Claim(
                "latency stays flat meanwhile",
                f"p99 {first['p99_ms']:.0f} ms with one, {rows[-1]['p99_ms']:.0f} ms with four",
                growth <= MOST_P99_GROWTH,
                "two cores did not keep up with the clients, the worker and four containers",
            ),
        ),
        (
            Claim(
                "each replica adds at least 0.9 of the first one's throughput",
                ", ".join(f"{up:.2f}" for up in speed_ups),
                all(up >= LEAST_LINEARITY * row["replicas"] for up, row in zip(speed_ups, others)),
            ),
            Claim("less than 1 % of the queries get the default", f"{missed:.2%} at most", missed < 0.01),
        ),
    )


def describe_table(numbers: Numbers) -> str:
    rows = numbers["counts"]
    return table(
        ["replicas", "outputs/s", "times one", "mean / p99, ms"],
        [
            [
                str(row["replicas"]),
                f"{row['outputs_per_s']:,.0f}",
                f"{row['outputs_per_s'] / rows[0]['outputs_per_s']:.2f}",
                f"{row['mean_ms']:.1f} / {row['p99_ms']:.1f}",
            ]
            for row in rows
        ],
    )


FIGURE = Figure("replicas", "figure 6: replicas of a model", measure, judge, describe_table, is_timed=True)
