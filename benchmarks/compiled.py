"""Rows on what the compiled form saves a query worker: processor time, as in ``encryption``, in alternating rounds."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import servers, wrk
from benchmarks.outcome import Outcome, Row
from benchmarks.workbench import FOUR, HERE, PIXELS, TURN_S, Workbench, median_ratio

CONNECTIONS = 32
# Two servers of one form were seen to differ by a fifth as long as they ran, so that several pairs share the rounds.
PAIRS, ROUNDS = 4, 2
MOST = 0.8
# Until the cache is full each query takes new pages, and clearing them costs the kernel as much as all else of a query.
WARM_UP_QUERIES = 20_000
# So long that no query is answered with the default, which costs less, however busy the machine is.
SLO_MS = 200


def compiled_over_pure(name: str, script: Path, what: str) -> Row:
    def measure(bench: Workbench) -> Outcome:
        commands, rounds = (servers.clipper_command(), compiled_command()), []
        for _ in range(PAIRS):
            with ExitStack() as stack:
                sides = [_serve(stack.enter_context(servers.clipper(command=command))) for command in commands]
                for server, _ in sides:
                    _warm_up(server, script)
                for _ in range(ROUNDS):
                    rounds.append([_query_us(server, worker, script, TURN_S) for server, worker in sides])
        pure, compiled = (list(column) for column in zip(*rounds))
        ratio = median_ratio(compiled, pure)
        value = f"{median(pure):.1f} to {median(compiled):.1f} µs, {ratio:.2f} ×"
        return Outcome(value, ratio <= MOST, {"pure_us": pure, "compiled_us": compiled, "ratio": ratio})

    return Row(name, f"worker's processor time for a query: compiled over pure, {what}", f"≤ {MOST:.2f} ×", measure)


def compiled_command() -> str:
    """The ``clipper`` of an environment in which this source is compiled; it is made if it is not there."""
    made = subprocess.run(["sh", HERE.parent / "scripts/compiled.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return f"{made.stdout.strip()}/bin/clipper"


def _serve(server: servers.ClipperServer) -> tuple[servers.ClipperServer, int]:
    """Have it answer sums, of any number of floats; return it with its worker's process id."""
    server.run("deploy", "sum", "total:total", "--input-type", "doubles", folder=HERE / "models")
    server.run("app", "create", "sum", "--model", "sum", "--slo-ms", str(SLO_MS), "--default", "-1")
    return server, server.process_ids()[1]


def _warm_up(server: servers.ClipperServer, script: Path) -> None:
    requests = 0
    while requests < WARM_UP_QUERIES:
        requests += wrk.run(server.url("sum"), script, connections=CONNECTIONS, seconds=TURN_S).requests


def _query_us(server: servers.ClipperServer, worker: int, script: Path, seconds: int) -> float:
    before_ns = servers.processor_ns(worker)
    load = wrk.run(server.url("sum"), script, connections=CONNECTIONS, seconds=seconds)
    return (servers.processor_ns(worker) - before_ns) / load.requests / 1e3


ROWS = [
    compiled_over_pure("compiled_sum4", FOUR, "sum of 4 floats"),
    compiled_over_pure("compiled_sum784", PIXELS, "sum of 784 floats"),
]
