"""Figure 11: what it costs that a model is in a process of its own, against calling it in the server's."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import wrk
from benchmarks.paper.bench import Bench
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.in_process import LOOP_ROWS, LOOP_S
from benchmarks.paper.training import PLAIN, PLAIN_FITTED_TO, trained
from benchmarks.servers import free_port, listens, process, wait_until

# Every request differs, so that no cache could answer it.
REQUESTS = Path(__file__).parents[1] / "yardstick" / "unique784.lua"

SLO_MS = 100
ROUNDS, ROUND_S, WARM_UP_S = 3, 3, 2
CONNECTIONS = {"alone": 1, "together": 32}
# From cheap to dear.
MODELS = ("linear-svm", "random-forest", "kernel-svm")
SERVERS = ("clipper", "in_process")


def measure(bench: Bench) -> Numbers:
    """For each model, rounds of both servers in turns, one request at a time and many."""
    train = fashion_mnist().train[:PLAIN_FITTED_TO]
    files = {name: trained(PLAIN[name](), train) for name in MODELS}
    bench.deploy(files, "--no-cache")
    models = {}
    for name, path in files.items():
        application = bench.create(f"{name}-app", [name], slo_ms=SLO_MS)
        with in_process(path) as theirs:
            models[name] = _compare({"clipper": bench.server.url(application), "in_process": theirs})
        models[name]["loop_per_s"] = round(_loop_per_s(path))
        bench.tell(_line(name, models[name]))
    return {"slo_ms": SLO_MS, "connections": CONNECTIONS, "loop_rows": LOOP_ROWS, "models": models}


@contextmanager
def in_process(model: Path) -> Iterator[str]:
    """FastAPI with the model in its process; yields its URL."""
    port = free_port()
    with process(["-m", "benchmarks.paper.in_process", str(model), str(port)]):
        wait_until(lambda: listens(port), f"FastAPI on port {port}")
        yield f"http://127.0.0.1:{port}/predict"


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
        ours, theirs = (found[server][kind] for server in SERVERS)
        return f"{ours['requests_per_s']:,.0f} / {theirs['requests_per_s']:,.0f}"

    return (
        f"{name:<14} Clipper / in process, requests/s: alone {rates('alone')}, together {rates('together')}; "
        f"in a loop {found['loop_per_s']:,} rows/s"
    )


def judge(numbers: Numbers) -> Verdict:
    """Together batches have to pay for the way to the container, and more; alone that way is all there is."""
    models = numbers["models"].values()
    together = [_ratio(found, "together", "requests_per_s") for found in models]
    more_ms = [found["clipper"]["alone"]["p50_ms"] - found["in_process"]["alone"]["p50_ms"] for found in models]
    failed = sum(found["clipper"][kind]["failed"] for found in models for kind in CONNECTIONS)
    text = (
        f"{min(together):.2f} to {max(together):.2f} × the requests/s of the model in the server's process at "
        f"{numbers['connections']['together']} connections; one at a time {min(more_ms):+.2f} to {max(more_ms):+.2f} ms"
    )
    return Verdict(text, min(together) >= 0.95 and max(more_ms) <= 1.0 and not failed)


def _ratio(found: Mapping[str, Any], kind: str, what: str) -> float:
    ours, theirs = (float(found[server][kind][what]) for server in SERVERS)
    return ours / theirs


FIGURE = Figure("decoupling", "figure 11: what decoupling costs", measure, judge, is_timed=True)
