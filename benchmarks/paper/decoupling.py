"""Figure 11: what it costs that a model is in a process of its own, against calling it in the server's."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import wrk
from benchmarks.harness.pages import table
from benchmarks.harness.servers import free_port, process, wait_until
from benchmarks.paper.bench import Bench
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict
from benchmarks.paper.in_process import LOOP_ROWS, LOOP_S
from benchmarks.paper.training import PLAIN, PLAIN_FITTED_TO, trained

# Every request differs, so that no cache could answer it.
REQUESTS = Path(__file__).parents[1] / "yardstick" / "unique784.lua"

SLO_MS = 100
ROUNDS, ROUND_S, WARM_UP_S = 3, 3, 2
CONNECTIONS = {"alone": 1, "together": 32}
# From cheap to dear.
MODELS = ("linear-svm", "random-forest", "kernel-svm")
# Clipper; FastAPI as its users write it; and FastAPI with all that Clipper has: batches, and as many processes.
SERVERS = ("clipper", "in_process", "batching")
# Of Clipper; with its query worker there are three processes, and so has FastAPI with batches.
REPLICAS = 2
PROCESSES = REPLICAS + 1
# A socket that listens, in /proc/net/tcp.
_LISTEN = "0A"


def measure(bench: Bench) -> Numbers:
    """For each model, rounds of all servers in turns, one request at a time and many. All call scikit-learn's own
    ``predict``.
    """
    train = fashion_mnist().train[:PLAIN_FITTED_TO]
    files = {name: trained(PLAIN[name](), train) for name in MODELS}
    bench.deploy_own_predict(files, "--no-cache", "--replicas", str(REPLICAS))
    models = {}
    for name, path in files.items():
        application = bench.create(f"{name}-app", [name], slo_ms=SLO_MS)
        with in_process(path) as bare, in_process(path, "batching", processes=PROCESSES) as batching:
            urls = (bench.server.url(application), bare, batching)
            models[name] = _compare(dict(zip(SERVERS, urls)))
        models[name]["loop_per_s"] = round(_loop_per_s(path))
        bench.tell(_line(name, models[name]))
    return {"slo_ms": SLO_MS, "connections": CONNECTIONS, "loop_rows": LOOP_ROWS, "models": models}


@contextmanager
def in_process(model: Path, *options: str, processes: int = 1) -> Iterator[str]:
    """FastAPI with the model in each of its processes; yields its URL."""
    port = free_port()
    with ExitStack() as stack:
        for begun in range(1, processes + 1):
            stack.enter_context(process(["-m", "benchmarks.paper.in_process", str(model), str(port), *options]))
            wait_until(partial(_listens, port, begun), f"{begun} of FastAPI on port {port}")
        yield f"http://127.0.0.1:{port}/predict"


def _listens(port: int, sockets: int) -> bool:
    """Whether so many sockets listen on it."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    states = [(fields[1].rpartition(":")[2], fields[3]) for fields in map(str.split, lines)]
    return states.count((f"{port:04X}", _LISTEN)) == sockets


def _compare(urls: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {server: {} for server in urls}
    for kind, connections in CONNECTIONS.items():
        loads: dict[str, list[wrk.Load]] = {server: [] for server in urls}
        for url in urls.values():
            wrk.run(url, REQUESTS, connections=connections, seconds=WARM_UP_S)
        for _ in range(ROUNDS):
            for server, url in urls.items():
                loads[server].append(wrk.run(url, REQUESTS, connections=connections, seconds=ROUND_S))
        for server, rounds in loads.items():
            found[server][kind] = _describe(rounds)
    return found


def _describe(rounds: list[wrk.Load]) -> dict[str, float]:
    return {
        "requests_per_s": round(median(load.requests_per_s for load in rounds), 1),
        "p50_ms": round(median(load.p50_ms for load in rounds), 3),
        "p99_ms": round(median(load.p99_ms for load in rounds), 3),
        "failed": sum(load.failed + load.broken for load in rounds),
    }


def _loop_per_s(model: Path) -> float:
    """Rows a second with no server at all."""
    command = [sys.executable, "-m", "benchmarks.paper.in_process", str(model), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 + 2 * LOOP_S, check=True)
    return float(done.stdout)


def _line(name: str, found: Mapping[str, Any]) -> str:
    def rates(kind: str) -> str:
        return " / ".join(f"{found[server][kind]['requests_per_s']:,.0f}" for server in SERVERS)

    return (
        f"{name:<14} {' / '.join(SERVERS)}, requests/s: alone {rates('alone')}, together {rates('together')}; "
        f"in a loop {found['loop_per_s']:,} rows/s"
    )


def judge(numbers: Numbers) -> Verdict:
    """Together batches have to pay for the way to the container, and more; alone that way is all there is."""
    models = numbers["models"].values()
    bare, batching = ([_ratio(found, server) for found in models] for server in SERVERS[1:])
    more_ms = [found["clipper"]["alone"]["p50_ms"] - found["in_process"]["alone"]["p50_ms"] for found in models]
    failed = sum(found["clipper"][kind]["failed"] for found in models for kind in CONNECTIONS)
    together = f"at {numbers['connections']['together']} connections"
    return Verdict(
        promises=(
            Claim(
                f"{together} Clipper answers at least 0.95 of FastAPI as its users write it",
                f"{min(bare):.2f} to {max(bare):.2f} times",
                min(bare) >= 0.95,
            ),
            Claim(
                f"{together} it answers at least 0.9 of FastAPI with batches and as many processes",
                f"{min(batching):.2f} to {max(batching):.2f} times",
                min(batching) >= 0.9,
            ),
            Claim(
                "one query at a time takes at most 1 ms more than in FastAPI's own process",
                f"{min(more_ms):+.2f} to {max(more_ms):+.2f} ms",
                max(more_ms) <= 1.0,
            ),
            Claim("no query fails", f"{failed} did", not failed),
        )
    )


def _ratio(found: Mapping[str, Any], server: str) -> float:
    """Of requests/s together, Clipper's over a server's."""
    ours, theirs = (float(found[each]["together"]["requests_per_s"]) for each in ("clipper", server))
    return ours / theirs


def describe_table(numbers: Numbers) -> str:
    rows = []
    for name, found in numbers["models"].items():
        cells = [
            " / ".join(form.format(found[server][kind][what]) for server in SERVERS)
            for kind, what, form in (
                ("together", "requests_per_s", "{:,.0f}"),
                ("together", "p99_ms", "{:.1f}"),
                ("alone", "p50_ms", "{:.2f}"),
            )
        ]
        rows.append([name, *cells, f"{found['loop_per_s']:,}"])
    head = [
        "model",
        f"requests/s at {numbers['connections']['together']} connections: Clipper / FastAPI / with batches",
        "p99 there, ms",
        "median one at a time, ms",
        "rows/s in a loop",
    ]
    return table(head, rows)


FIGURE = Figure("decoupling", "figure 11, with a server in Python", measure, judge, describe_table, is_timed=True)
