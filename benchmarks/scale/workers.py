"""``python -m benchmarks.scale.workers``: what one, two and more query workers answer on one, two and more cores.

All of it, with the load's sender, is bound to so many cores. Servers that differ in their workers alone take turns.
"""

import argparse
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness import servers, wrk
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.harness.workbench import FOUR, PIXELS, TURN_S
from benchmarks.rows.languages import cpu_s

SLO_MS = 20
APPLICATION = "sum"
# Until it is full, a cache takes new pages with each query; see ``pairs``.
WARM_UP_QUERIES = 20_000


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    script: Path
    connections: int


LOADS = [
    Load(f"{what}, {connections} connection{'s' if connections > 1 else ''}", script, connections)
    for what, script in (("4 floats", FOUR), ("784 floats", PIXELS))
    for connections in (1, 32, 128)
]


@dataclass(frozen=True, slots=True)
class Round:
    """What a server did under one load.

    Attributes:
        outputs_per_s: answers with the model's output.
        cpu_us: processor time of all of Clipper's processes over the answers.
    """

    outputs_per_s: float
    p99_ms: float
    cpu_us: float


class Side:
    """A server with so many workers, and a sum for a model."""

    def __init__(self, server: servers.ClipperServer, workers: int) -> None:
        self.workers = workers
        self._server = server
        server.deploy(APPLICATION, "total:total", "--input-type", "doubles", slo_ms=SLO_MS)
        self._processes = [*server.process_ids(), *(each["pid"] for each in server.run("replica", "list"))]

    def warm_up(self, load: Load) -> None:
        asked = 0
        while asked < WARM_UP_QUERIES:
            asked += wrk.run(self._server.url(APPLICATION), load.script, connections=32, seconds=TURN_S).requests

    def round(self, load: Load) -> Round:
        url = self._server.url(APPLICATION)
        defaults, cpu = self._defaults(), sum(map(cpu_s, self._processes))
        seen = wrk.run(url, load.script, connections=load.connections, seconds=TURN_S)
        cpu = sum(map(cpu_s, self._processes)) - cpu
        outputs = seen.requests - (self._defaults() - defaults)
        return Round(seen.requests_per_s * outputs / seen.requests, seen.p99_ms, cpu / seen.requests * 1e6)

    def _defaults(self) -> float:
        return self._server.metrics().total("clipper_defaults_total")


def measure(cores: int, workers: list[int], rounds: int) -> None:
    """Print a row for each load and number of workers: the medians of its rounds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with ExitStack() as stack:
        sides = [Side(stack.enter_context(servers.clipper("--workers", str(count))), count) for count in workers]
        for load in LOADS:
            for side in sides:
                side.warm_up(load)
            found: dict[int, list[Round]] = {count: [] for count in workers}
            for _ in range(rounds):
                for side in sides:
                    found[side.workers].append(side.round(load))
            for count, each in found.items():
                per_s, p99_ms, cpu_us = (
                    median(getattr(one, name) for one in each) for name in ("outputs_per_s", "p99_ms", "cpu_us")
                )
                print(f"| {cores} | {load.name} | {count} | {per_s:,.0f} | {p99_ms:.1f} | {cpu_us:.1f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.workers", description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="each by itself (1 2)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="servers beside each other (1 2)")
    parser.add_argument("--rounds", type=int, default=6, help="of 2 s, for each load and server (6)")
    asked = parser.parse_args()
    end_in_order_at_sigterm()
    print(
        "| cores | load | workers | outputs/s | p99, ms | CPU of all processes a query, µs |\n|---|---|---|---|---|---|"
    )
    everything = os.sched_getaffinity(0)
    for cores in asked.cores:
        os.sched_setaffinity(0, everything)
        measure(cores, asked.workers, asked.rounds)
