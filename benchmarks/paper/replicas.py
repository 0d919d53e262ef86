"""Figure 6: how throughput grows with replicas."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import uvloop

from benchmarks.load import Answer, LoadClient, post
from benchmarks.paper.bench import MODELS, Bench
from benchmarks.paper.client import Address
from benchmarks.paper.figure import Figure, Numbers, Verdict

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
    """For each number of replicas, as many clients for each of them."""
    server = bench.server
    options = ("--input-type", "doubles", "--no-cache", "--max-batch", str(MAX_BATCH))
    server.run("deploy", "waiting", "waiting:predict", *options, folder=MODELS)
    bench.create("waiting", ["waiting"], slo_ms=SLO_MS)
    rows = []
    requests = count_requests()
    for count in COUNTS:
        server.run("model", "scale", "waiting", str(count))
        connections = CONNECTIONS_A_REPLICA * count
        load(bench.address, connections, WARM_UP_S, requests)
        row = {"replicas": count, **describe(load(bench.address, connections, SECONDS, requests), SECONDS)}
        bench.tell(f"{count} replicas: {row['outputs_per_s']:,.0f} outputs/s, p99 {row['p99_ms']:.1f} ms")
        rows.append(row)
    return {"slo_ms": SLO_MS, "connections_a_replica": CONNECTIONS_A_REPLICA, "seconds": SECONDS, "counts": rows}


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
    is_linear = all(up >= LEAST_LINEARITY * row["replicas"] for up, row in zip(speed_ups, others))
    is_flat = max(row["p99_ms"] for row in others) <= MOST_P99_GROWTH * first["p99_ms"]
    text = (
        f"{', '.join(f'× {up:.2f}' for up in speed_ups)} with 2 to {rows[-1]['replicas']} replicas, "
        f"p99 {first['p99_ms']:.0f} to {rows[-1]['p99_ms']:.0f} ms"
    )
    answered = all(row["default_share"] < 0.01 for row in rows)
    return Verdict(text, is_linear and speed_ups[-1] >= LEAST_SPEED_UP and is_flat and answered)


FIGURE = Figure("replicas", "figure 6: replicas of a model", measure, judge, is_timed=True)
