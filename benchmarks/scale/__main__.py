"""``python -m benchmarks.scale``: what changes take, and what the supervisor takes, beside few models and beside many.

It exits 1 if what docs/scale.md promises does not hold.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks import machine
from benchmarks.scale.fleet import Fleet, Size, fleet, model_name
from benchmarks.scale.picture import PICTURE, draw
from benchmarks.scale.queries import query_us
from benchmarks.termination import end_in_order_at_sigterm

RESULTS = Path(__file__).parent / "results.json"
SIZES = (10, 100, 300, 1000)
REPLICAS_OF_MODEL = 5
WORKERS = 64
# How often each change is made, and how long nothing is done to see what that takes.
APPLICATIONS, DEPLOYMENTS, REST_S = 20, 10, 10.0
QUERY_ROUNDS = 12
# What monitoring and dashboards ask for again and again, and how often each is asked for here.
READS = ("/metrics", "/models", "/replicas", "/status", "/series", "/applications", "/applications/app-0/report")
READ_TIMES = 3
# What has to hold at the largest size.
REACHED_WITHIN_S, MOST_CORES, MOST_BYTES, MOST_QUERY_RATIO = 2.0, 1.0, 1e9, 1.05
# A scrape by Prometheus, unless it is told otherwise.
READ_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """At one size.

    Attributes:
        create_s: seconds until all workers serve a new application: the median, and the longest.
        deploy_s: seconds until all workers serve a new version.
        create_cpu_s, deploy_cpu_s: processor time of the supervisor for each.
        worker_create_cpu_s: processor time of one worker for a new application.
        rest_cores: share of a processor that the supervisor takes while nothing changes.
        busy_cores: and while one deployment follows another.
        memory_bytes: of the supervisor, after all else.
        reads: by path, the median seconds until the answer is there, the supervisor's processor time for it, and its
            bytes.
    """

    models: int
    replicas: int
    workers: int
    create_s: tuple[float, float]
    deploy_s: tuple[float, float]
    create_cpu_s: float
    deploy_cpu_s: float
    worker_create_cpu_s: float
    rest_cores: float
    busy_cores: float
    memory_bytes: int
    reads: dict[str, tuple[float, float, int]]


def measure(running: Fleet, size: Size, digest: str) -> Measured:
    time.sleep(5.0)  # until all that comes up has settled
    before_s, began_s = running.cpu_s(), time.monotonic()
    time.sleep(REST_S)
    rest = (running.cpu_s() - before_s) / (time.monotonic() - began_s)
    before_s, workers_s = running.cpu_s(), running.hosts_cpu_s()
    created = [
        running.create_application(f"new-{turn}", model_name(turn % size.models)) for turn in range(APPLICATIONS)
    ]
    create_cpu_s = (running.cpu_s() - before_s) / APPLICATIONS
    worker_cpu_s = (running.hosts_cpu_s() - workers_s) / APPLICATIONS / size.workers
    before_s, began_s = running.cpu_s(), time.monotonic()
    deployed = [
        running.deploy(model_name(turn % size.models), f"new-{turn}", digest, REPLICAS_OF_MODEL)
        for turn in range(DEPLOYMENTS)
    ]
    deploy_cpu_s, deployed_s = running.cpu_s() - before_s, time.monotonic() - began_s
    reads = {path: read(running, path) for path in READS}
    return Measured(
        size.models,
        size.replicas,
        size.workers,
        (median(created), max(created)),
        (median(deployed), max(deployed)),
        create_cpu_s,
        deploy_cpu_s / DEPLOYMENTS,
        worker_cpu_s,
        rest,
        deploy_cpu_s / deployed_s,
        running.memory_bytes(),
        reads,
    )


def read(running: Fleet, path: str) -> tuple[float, float, int]:
    found = [running.read(path) for _ in range(READ_TIMES)]
    wall_s, cpu_s = (median(one[index] for one in found) for index in (0, 1))
    return wall_s, cpu_s, found[-1][2]


def main(sizes: list[int], workers: int, *, has_queries: bool, saves: bool) -> int:
    found: list[Measured] = []
    ratios: list[float] = []
    print("| models | replicas | create, ms | deploy, ms | CPU create | CPU deploy | one worker | rest | busy | MB |")
    for models in sizes:
        size = Size(models, models * REPLICAS_OF_MODEL, workers)
        with tempfile.TemporaryDirectory(prefix="scale-") as folder, fleet(Path(folder), size) as (running, digest):
            one = measure(running, size, digest)
        found.append(one)
        print(
            f"| {one.models} | {one.replicas} | {one.create_s[0] * 1e3:.0f} to {one.create_s[1] * 1e3:.0f} | "
            f"{one.deploy_s[0] * 1e3:.0f} to {one.deploy_s[1] * 1e3:.0f} | {one.create_cpu_s * 1e3:.1f} | "
            f"{one.deploy_cpu_s * 1e3:.0f} | {one.worker_create_cpu_s * 1e3:.2f} | {one.rest_cores:.3f} | "
            f"{one.busy_cores:.2f} | {one.memory_bytes / 1e6:.0f} |",
            flush=True,
        )
        for path, (wall_s, cpu_s, answered) in one.reads.items():
            print(f"  GET {path}: {wall_s:.2f} s, CPU {cpu_s:.2f} s, {answered / 1e6:.2f} MB", flush=True)
        if saves:
            save(found, ratios)
    if has_queries:
        largest = Size(sizes[-1], sizes[-1] * REPLICAS_OF_MODEL, 1)
        rounds = query_us((Size(1, REPLICAS_OF_MODEL, 1), largest), QUERY_ROUNDS)
        ratios = [many / one for one, many in rounds]
        one_us, many_us = (median(side) for side in zip(*rounds))
        print(
            f"a query: {one_us:.1f} us with 1 model, {many_us:.1f} us "
            f"with {sizes[-1]}: {median(ratios):.3f} in the median of {len(ratios)} rounds"
        )
        if saves:
            save(found, ratios)
    broken = broken_promises(found[-1])
    if ratios and median(ratios) > MOST_QUERY_RATIO:
        broken.append(f"a query takes {median(ratios):.3f} times as long beside many models")
    print("\n".join(broken) or "all that docs/scale.md promises holds")
    return 1 if broken else 0


def broken_promises(one: Measured) -> list[str]:
    """What does not hold at the largest size."""
    promises = {
        f"a new application took {one.create_s[1]:.1f} s": one.create_s[1] <= REACHED_WITHIN_S,
        f"a deployment took {one.deploy_s[1]:.1f} s": one.deploy_s[1] <= REACHED_WITHIN_S,
        f"the supervisor took {one.busy_cores:.2f} processors": max(one.rest_cores, one.busy_cores) < MOST_CORES,
        f"the supervisor has {one.memory_bytes / 1e6:.0f} MB": one.memory_bytes < MOST_BYTES,
    } | {f"GET {path} took {wall_s:.1f} s": wall_s < READ_WITHIN_S for path, (wall_s, _, _) in one.reads.items()}
    return [what for what, holds in promises.items() if not holds]


def save(found: list[Measured], ratios: list[float]) -> None:
    results = {"machine": machine.facts(), "sizes": [asdict(one) for one in found], "query_ratios": ratios}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    draw(found, PICTURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of models, five replicas each"
    )
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--no-queries", action="store_true", help="leave out the processor time of a query")
    parser.add_argument("--save", action="store_true", help="write results.json and docs/scale.svg")
    asked = parser.parse_args()
    end_in_order_at_sigterm()
    sys.exit(main(asked.sizes, asked.workers, has_queries=not asked.no_queries, saves=asked.save))
