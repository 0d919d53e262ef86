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

from benchmarks.harness import machine
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.scale.fleet import Fleet, Size, fleet, model_name
from benchmarks.scale.measured import Measured
from benchmarks.scale.page import table, with_results
from benchmarks.scale.picture import draw
from benchmarks.scale.queries import query_us

SIZES = (10, 100, 1000)
REPLICAS_OF_MODEL = 5
WORKERS = 64
QUERY_ROUNDS = 12
# Monitoring and dashboards ask for these again and again.
READS = ("/metrics", "/models", "/replicas", "/status", "/series", "/applications", "/applications/app-0/report")
# Bounds that hold at the largest size.
REACHED_WITHIN_S, MOST_CORES, MOST_BYTES, MOST_QUERY_RATIO = 2.0, 1.0, 1e9, 1.05
# A scrape by Prometheus, unless it is told otherwise.
READ_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done at each size.

    Attributes:
        settle_s: seconds until what has come up has settled.
        rest_s: for how long nothing is done, to see what that takes.
        reads: how often each of ``READS`` is asked for.
    """

    settle_s: float = 5.0
    rest_s: float = 10.0
    applications: int = 20
    deployments: int = 10
    reads: int = 3


@dataclass(frozen=True, slots=True)
class Saved:
    """The files that show the last run. ``page`` has a place for its table."""

    results: Path
    page: Path
    picture: Path


DOCS = Path(__file__).parents[2] / "docs"
SAVED = Saved(Path(__file__).parent / "results.json", DOCS / "scale.md", DOCS / "scale.svg")


def measure(running: Fleet, size: Size, digest: str, effort: Effort) -> Measured:
    time.sleep(effort.settle_s)
    before_s, workers_s, began_s = running.cpu_s(), running.hosts_cpu_s(), time.monotonic()
    time.sleep(effort.rest_s)
    rested_s = time.monotonic() - began_s
    rest = (running.cpu_s() - before_s) / rested_s
    worker_rest = (running.hosts_cpu_s() - workers_s) / rested_s / size.workers
    before_s, workers_s = running.cpu_s(), running.hosts_cpu_s()
    created = [
        running.create_application(f"new-{turn}", model_name(turn % size.models)) for turn in range(effort.applications)
    ]
    create_cpu_s = (running.cpu_s() - before_s) / effort.applications
    worker_cpu_s = (running.hosts_cpu_s() - workers_s) / effort.applications / size.workers
    before_s, began_s = running.cpu_s(), time.monotonic()
    deployed = [
        running.deploy(model_name(turn % size.models), f"new-{turn}", digest, REPLICAS_OF_MODEL)
        for turn in range(effort.deployments)
    ]
    deploy_cpu_s, deployed_s = running.cpu_s() - before_s, time.monotonic() - began_s
    reads = {path: read(running, path, effort.reads) for path in READS}
    return Measured(
        size.models,
        size.replicas,
        size.workers,
        (median(created), max(created)),
        (median(deployed), max(deployed)),
        create_cpu_s,
        deploy_cpu_s / effort.deployments,
        worker_cpu_s,
        rest,
        worker_rest,
        deploy_cpu_s / deployed_s,
        running.memory_bytes(),
        reads,
    )


def read(running: Fleet, path: str, times: int) -> tuple[float, float, int]:
    found = [running.read(path) for _ in range(times)]
    wall_s, cpu_s = (median(one[index] for one in found) for index in (0, 1))
    return wall_s, cpu_s, found[-1][2]


def main(sizes: list[int], workers: int, effort: Effort, *, query_rounds: int, saved: Saved | None) -> int:
    """Measure, print and, unless ``saved`` is None, save. Return the status to exit with."""
    found: list[Measured] = []
    ratios: list[float] = []
    for models in sizes:
        size, began_s = Size(models, models * REPLICAS_OF_MODEL, workers), time.monotonic()
        with tempfile.TemporaryDirectory(prefix="scale-") as folder, fleet(Path(folder), size) as (running, digest):
            up_s = time.monotonic() - began_s
            found.append(measure(running, size, digest, effort))
        print(f"{models} models: up after {up_s:.0f} s, measured after {time.monotonic() - began_s:.0f} s", flush=True)
        if saved is not None:
            save(found, ratios, saved)
    if query_rounds:
        largest = Size(sizes[-1], sizes[-1] * REPLICAS_OF_MODEL, 1)
        rounds = query_us((Size(1, REPLICAS_OF_MODEL, 1), largest), query_rounds)
        ratios = [many / one for one, many in rounds]
        one_us, many_us = (median(side) for side in zip(*rounds))
        print(f"a query: {one_us:.1f} us with 1 model, {many_us:.1f} us with {sizes[-1]}")
        if saved is not None:
            save(found, ratios, saved)
    print(table(found, ratios))
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
        f"the supervisor took {one.rest_cores:.2f} processors at rest": one.rest_cores < MOST_CORES,
        f"the supervisor took {one.busy_cores:.2f} processors while it deployed": one.busy_cores < MOST_CORES,
        f"the supervisor has {one.memory_bytes / 1e6:.0f} MB": one.memory_bytes < MOST_BYTES,
    } | {f"GET {path} took {wall_s:.1f} s": wall_s < READ_WITHIN_S for path, (wall_s, _, _) in one.reads.items()}
    return [what for what, holds in promises.items() if not holds]


def save(found: list[Measured], ratios: list[float], saved: Saved) -> None:
    of_machine = machine.facts()
    results = {"machine": of_machine, "sizes": [asdict(one) for one in found], "query_ratios": ratios}
    saved.results.write_text(json.dumps(results, indent=1) + "\n")
    draw(found, saved.picture)
    ran_on = f"{of_machine['processor']}, {of_machine['cores']} processors, Python {of_machine['python']}"
    picture = f"![What changes take, and what the supervisor takes, by the number of models]({saved.picture.name})"
    text = f"{picture}\n\n{table(found, ratios)}\n\nMeasured on {ran_on}."
    saved.page.write_text(with_results(saved.page.read_text(), text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, help="numbers of models, five replicas each")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--no-queries", action="store_true", help="leave out the processor time of a query")
    parser.add_argument(
        "--save",
        action="store_true",
        help="write results.json and docs/scale.svg, and put the table into docs/scale.md",
    )
    asked = parser.parse_args()
    end_in_order_at_sigterm()
    rounds = 0 if asked.no_queries else QUERY_ROUNDS
    saved = SAVED if asked.save else None
    sys.exit(main(list(asked.sizes), asked.workers, Effort(), query_rounds=rounds, saved=saved))
