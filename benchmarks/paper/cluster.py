"""``python -m benchmarks.paper.cluster``: figure 6 on the nodes of a real Ray cluster, and Ray Serve on the same nodes.

All nodes are on this machine. It is measured by itself, because it needs an environment with Ray and Serve
(requirements/serve.txt). The model waits, so that two cores can show what each server adds or loses with more replicas:
of Clipper here also TLS, and a front before each container.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness.machine import facts
from benchmarks.harness.pages import fill, table
from benchmarks.harness.servers import clipper
from benchmarks.paper.bench import MODELS, Bench
from benchmarks.paper.client import Address
from benchmarks.paper.figure import Claim, Numbers, Verdict
from benchmarks.paper.page import promises_table
from benchmarks.paper.replicas import (
    MAX_BATCH,
    MOST_P99_GROWTH,
    SECONDS,
    SLO_MS,
    WARM_UP_S,
    count_requests,
    describe,
    load,
)
from benchmarks.paper.results import write
from benchmarks.paper.serve import serving
from benchmarks.peers.processes import cpu_s, processes_of
from scripts.ray_cluster import running_cluster
from scripts.real_models import environment

COUNTS = (1, 2, 4, 8)
NODES = 4
# The head takes no replica; each of the others has room for two.
CPUS_A_NODE = 2.0
# Fewer than on one machine: eight replicas have as many clients in all as four have there.
CONNECTIONS_A_REPLICA = 64
LEAST_LINEARITY = 0.95
# How often Clipper is asked whether its replicas are ready; the program of Serve asks as often.
LOOK_EVERY_S = 0.05

# The page that shows the last run.
PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
# Of all processes of the cluster and of both servers: this program's variable, which they inherit.
MARK = "CLIPPER_BENCHMARK_RUN"


@dataclass(frozen=True, slots=True)
class Measured:
    """A server of the model ``waiting``.

    Attributes:
        scale: has so many replicas, and returns the seconds until all of them are ready.
    """

    name: str
    address: Address
    scale: Callable[[int], float]


def clipper_with_waiting(bench: Bench) -> Measured:
    """Deploy the model with one replica."""
    options = ("--input-type", "doubles", "--no-cache", "--max-batch", str(MAX_BATCH))
    bench.server.run("deploy", "waiting", "waiting:predict", *options, folder=MODELS)
    bench.create("waiting", ["waiting"], slo_ms=SLO_MS)

    def scale(replicas: int) -> float:
        began_s = time.perf_counter()
        bench.call("POST", "models/waiting/scale", {"replicas": replicas})
        while [one["state"] for one in bench.call("GET", "replicas")] != ["ready"] * replicas:
            time.sleep(LOOK_EVERY_S)
        return time.perf_counter() - began_s

    return Measured("Clipper", bench.address, scale)


def measure(measured: Measured, mark: str, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each number of replicas, as many clients for each of them; then the time from one replica to the most."""
    rows = []
    requests = count_requests()
    for count in COUNTS:
        measured.scale(count)
        connections = CONNECTIONS_A_REPLICA * count
        load(measured.address, connections, WARM_UP_S, requests)
        row = {"replicas": count, **loaded(measured.address, connections, requests, mark)}
        tell(
            f"{measured.name}, {count} replicas: {row['outputs_per_s']:,.0f} outputs/s, p99 {row['p99_ms']:.1f} ms, "
            f"{row['cpu_us']:.0f} µs of processor time each"
        )
        rows.append(row)
    measured.scale(1)
    rows[-1]["scaled_in_s"] = round(measured.scale(COUNTS[-1]), 2)
    tell(f"{measured.name}, from 1 to {COUNTS[-1]} replicas: {rows[-1]['scaled_in_s']:.1f} s")
    return rows


def loaded(address: Address, connections: int, requests: Iterator[bytes], mark: str) -> dict[str, Any]:
    """What clients get, and the processor time for each output of all processes but this one."""
    processes = processes_of(mark)
    before_s = cpu_s(processes)
    row = describe(load(address, connections, SECONDS, requests), SECONDS)
    taken_s = sum(now_s - before_s[pid] for pid, now_s in cpu_s(processes).items() if pid in before_s)
    return {**row, "cpu_us": round(taken_s / max(row["outputs_per_s"] * SECONDS, 1.0) * 1e6, 1)}


def judge(numbers: Numbers) -> Verdict:
    """Whether Clipper's throughput grows with replicas and its tail does not."""
    first, *others = rows = numbers["clipper"]
    speed_ups = [row["outputs_per_s"] / first["outputs_per_s"] for row in others]
    missed = max(row["default_share"] for row in rows)
    counts = ", ".join(str(row["replicas"]) for row in others)
    return Verdict(
        promises=(
            Claim(
                f"throughput with {counts} replicas is at least {LEAST_LINEARITY} of as many times that of one",
                f"{', '.join(f'{up:.2f}' for up in speed_ups)} times",
                all(up >= LEAST_LINEARITY * row["replicas"] for up, row in zip(speed_ups, others)),
            ),
            Claim(
                f"the 99th percentile grows by a factor of {MOST_P99_GROWTH} at most",
                f"{min(row['p99_ms'] for row in rows):.0f} to {max(row['p99_ms'] for row in rows):.0f} ms",
                max(row["p99_ms"] for row in others) <= MOST_P99_GROWTH * first["p99_ms"],
            ),
            Claim("less than 1 % of the queries get the default", f"{missed:.2%} at most", missed < 0.01),
        )
    )


def describe_run(numbers: Numbers) -> str:
    """Both servers side by side, as Markdown: Clipper's number first."""
    rows = [
        [
            str(one["replicas"]),
            f"{one['outputs_per_s']:,.0f}; {other['outputs_per_s']:,.0f}",
            f"{one['p99_ms']:.0f}; {other['p99_ms']:.0f}",
            f"{one['cpu_us']:.0f}; {other['cpu_us']:.0f}",
        ]
        for one, other in zip(numbers["clipper"], numbers["serve"])
    ]
    one, other = (numbers[name][-1]["scaled_in_s"] for name in ("clipper", "serve"))
    rows.append([f"from 1 to {COUNTS[-1]}, s", f"{one:.1f}; {other:.1f}", "", ""])
    head = ["replicas", "outputs/s: Clipper, Serve", "p99 ms", "processor time of an output, µs"]
    return f"{promises_table(judge(numbers))}\n{table(head, rows)}"


def main() -> int:
    console = Console()
    machine = facts()
    os.environ[MARK] = uuid.uuid4().hex
    mark = f"{MARK}={os.environ[MARK]}"

    def tell(text: str) -> None:
        console.print(f"  {text}", highlight=False)

    numbers: dict[str, Any] = {"slo_ms": SLO_MS, "nodes": NODES, "seconds": SECONDS}
    with running_cluster(environment("serve"), 0, *(CPUS_A_NODE for _ in range(NODES))) as cluster:
        options = ("--manager", "ray", "--ray-address", cluster.address, "--ray-python", str(cluster.python))
        with clipper(*options) as server:
            numbers["clipper"] = measure(clipper_with_waiting(Bench(server, tell)), mark, tell)
        with serving(cluster, MODELS, MAX_BATCH) as serve:
            numbers["serve"] = measure(Measured("Ray Serve", serve.address, serve.scale), mark, tell)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write("cluster", {"at": now, "machine": machine, "numbers": numbers})
    PAGE.write_text(fill(PAGE.read_text(), {"cluster": describe_run(numbers)}))
    console.print(describe_run(numbers), highlight=False)
    return int(bool(judge(numbers).broken))


if __name__ == "__main__":
    sys.exit(main())
