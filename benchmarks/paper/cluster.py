"""``python -m benchmarks.paper.cluster``: figure 6 on the nodes of a real Ray cluster, all on this machine.

It is measured by itself, because it needs an environment with Ray (requirements/ray.txt). The model waits, so that two
cores can show what Clipper adds or loses with more replicas: here also TLS, and a front before each container.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.machine import facts
from benchmarks.paper.bench import MODELS, Bench
from benchmarks.paper.figure import Numbers, Verdict
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
from benchmarks.ray_cluster import running_cluster
from benchmarks.real_models import environment
from benchmarks.servers import clipper

COUNTS = (1, 2, 4, 8)
NODES = 4
# The head takes no replica; each of the others has room for two.
CPUS_A_NODE = 2.0
# Fewer than on one machine: eight replicas have as many clients in all as four have there.
CONNECTIONS_A_REPLICA = 64
LEAST_LINEARITY = 0.95

RESULT = Path(__file__).parent / "results" / "cluster.json"


def measure(bench: Bench) -> Numbers:
    """For each number of replicas, as many clients for each of them."""
    options = ("--input-type", "doubles", "--no-cache", "--max-batch", str(MAX_BATCH), "--manager", "ray")
    bench.server.run("deploy", "waiting", "waiting:predict", *options, folder=MODELS)
    bench.create("waiting", ["waiting"], slo_ms=SLO_MS)
    rows = []
    requests = count_requests()
    for count in COUNTS:
        bench.server.run("model", "scale", "waiting", str(count))
        connections = CONNECTIONS_A_REPLICA * count
        load(bench.address, connections, WARM_UP_S, requests)
        row = {"replicas": count, **describe(load(bench.address, connections, SECONDS, requests), SECONDS)}
        row["nodes"] = bench.server.run("status")["nodes"]
        bench.tell(f"{count} replicas: {row['outputs_per_s']:,.0f} outputs/s, p99 {row['p99_ms']:.1f} ms")
        rows.append(row)
    return {"slo_ms": SLO_MS, "nodes": NODES, "seconds": SECONDS, "counts": rows}


def judge(numbers: Numbers) -> Verdict:
    """Whether throughput grows with replicas and the tail does not."""
    first, *others = rows = numbers["counts"]
    speed_ups = [row["outputs_per_s"] / first["outputs_per_s"] for row in others]
    is_linear = all(up >= LEAST_LINEARITY * row["replicas"] for up, row in zip(speed_ups, others))
    is_flat = max(row["p99_ms"] for row in others) <= MOST_P99_GROWTH * first["p99_ms"]
    answered = all(row["default_share"] < 0.01 for row in rows)
    text = (
        f"{', '.join(f'× {up:.2f}' for up in speed_ups)} with {', '.join(str(row['replicas']) for row in others)} "
        f"replicas, p99 {first['p99_ms']:.0f} to {rows[-1]['p99_ms']:.0f} ms"
    )
    return Verdict(text, is_linear and is_flat and answered)


def main() -> int:
    console = Console()
    machine = facts()
    with running_cluster(environment("ray"), 0, *(CPUS_A_NODE for _ in range(NODES))) as cluster:
        options = ("--ray-address", cluster.address, "--ray-python", str(cluster.python))
        with clipper(*options) as server:
            numbers = measure(Bench(server, lambda text: console.print(f"  {text}", highlight=False)))
    verdict = judge(numbers)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    document = {
        "at": now,
        "passed": verdict.passed,
        "verdict": verdict.text,
        "machine": machine,
        "numbers": numbers,
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"{'passed' if verdict.passed else 'failed'}: {verdict.text}")
    return int(not verdict.passed)


if __name__ == "__main__":
    sys.exit(main())
