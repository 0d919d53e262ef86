"""Rows on what Clipper costs before and between queries: start-up and memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.harness import servers
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.training import digits
from benchmarks.harness.workbench import FOUR, Workbench

IMPORT_WITHIN_S = 0.4
FIRST_ANSWER_WITHIN_S = 3.0
IDLE_WITHIN_MB = 150.0
# A heap of this size moves by as much without a leak: a leak of 2 bytes a query would be seen.
GROWTH_WITHIN_MB = 2.0

REPEATS = 5
QUERIES = 1_000_000
# The heap grows until the cache has been filled and replaced once: new entries do not fit where old ones were.
# Only after that one sees the memory that a query leaves behind.
WARM_UP_TURNOVERS = 2
WARM_UP_AT_MOST_QUERIES = 3_000_000
BURST_S = 5
CONNECTIONS = 32
SERVE_WITHIN_S = 30.0


def import_time(bench: Workbench) -> Outcome:
    bare_s, ours_s, client_s = (_python_s(code) for code in ("pass", "import clipper", "from clipper import Clipper"))
    numbers = {"python_s": bare_s, "import_clipper_s": ours_s, "import_client_s": client_s}
    passed = ours_s <= IMPORT_WITHIN_S and client_s <= IMPORT_WITHIN_S
    return Outcome(f"{ours_s:.2f} s; with the client {client_s:.2f} s", passed, numbers)


def _python_s(code: str) -> float:
    """The least of ``REPEATS`` runs of a Python that does this, its own start included."""
    return min(_elapsed_s([sys.executable, "-c", code]) for _ in range(REPEATS))


def _elapsed_s(command: list[str]) -> float:
    began_s = time.perf_counter()
    subprocess.run(command, check=True, timeout=60)
    return time.perf_counter() - began_s


def first_answer(bench: Workbench) -> Outcome:
    model = bench.model_file("linear_svm")
    runs = [_serve_until_answer_s(model) for _ in range(3)]
    best_s = min(runs)
    return Outcome(f"{best_s:.2f} s", best_s <= FIRST_ANSWER_WITHIN_S, {"first_answer_s": runs})


def _serve_until_answer_s(model: Path) -> float:
    port = servers.free_port()
    _, (images, _) = digits()
    body = {"input": images[0].tolist()}
    with tempfile.TemporaryDirectory(prefix="clipper-bench-") as home:
        environment = {**os.environ, "CLIPPER_HOME": home}
        began_s = time.perf_counter()
        options = ["--name", "digits", "--query-port", str(port), "--management-port", "0"]
        command = [servers.clipper_command(), "serve", str(model), *options]
        serving = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            servers.wait_until(lambda: _answers(port, body), f"`clipper serve` to answer on port {port}")
            return time.perf_counter() - began_s
        finally:
            serving.terminate()
            serving.wait(SERVE_WITHIN_S)


def _answers(port: int, body: dict[str, object]) -> bool:
    """Whether a query is answered with the model's output."""
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/digits/predict", json=body, timeout=5)
    except httpx.TransportError:  # it does not listen yet
        return False
    return answer.status_code == 200 and not answer.json()["default"]


def memory_idle(bench: Workbench) -> Outcome:
    with servers.clipper() as server:
        each_mb = [resident_mb(pid) for pid in server.process_ids()]
    total_mb = sum(each_mb)
    numbers = {"supervisor_mb": each_mb[0], "workers_mb": each_mb[1:]}
    return Outcome(f"{total_mb:.0f} MB", total_mb <= IDLE_WITHIN_MB, numbers)


def memory_growth(bench: Workbench) -> Outcome:
    application = bench.application("sum")
    worker = bench.server.process_ids()[1]
    evicted_before = _evicted(bench)
    warmed_with = _load_until(
        bench, application, WARM_UP_AT_MOST_QUERIES, lambda: _has_turned_over(bench, evicted_before)
    )
    before_mb = resident_mb(worker)
    queries = _load_until(bench, application, QUERIES)
    growth_mb = resident_mb(worker) - before_mb
    numbers = {"warm_up_queries": warmed_with, "queries": queries, "worker_mb": before_mb, "growth_mb": growth_mb}
    return Outcome(f"{growth_mb:+.1f} MB at {before_mb:.0f} MB", growth_mb <= GROWTH_WITHIN_MB, numbers)


def _load_until(bench: Workbench, application: str, queries: int, is_enough: Callable[[], bool] = lambda: False) -> int:
    """Load in bursts until so many queries were answered, or it is enough; return how many were."""
    done = 0
    while done < queries:
        done += bench.serve(application, FOUR, connections=CONNECTIONS, seconds=BURST_S).load.requests
        if is_enough():
            break
    return done


def _has_turned_over(bench: Workbench, evicted_before: float) -> bool:
    """Whether this load has: other rows' entries may be of another size."""
    entries = bench.server.metrics().total("clipper_cache_entries")
    return _evicted(bench) - evicted_before > WARM_UP_TURNOVERS * entries


def _evicted(bench: Workbench) -> float:
    return bench.server.metrics().total("clipper_cache_evictions_total")


def resident_mb(pid: int) -> float:
    """A process's resident memory; what it shares with others counts in full."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (resident,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(resident.split()[1]) / 1000


ROWS = [
    Row("import_time", "import clipper, from Python's start", f"≤ {IMPORT_WITHIN_S} s", import_time),
    Row("first_answer", "clipper serve to its first answer", f"≤ {FIRST_ANSWER_WITHIN_S:.0f} s", first_answer),
    Row("memory_idle", "idle: supervisor and one worker", f"≤ {IDLE_WITHIN_MB:.0f} MB", memory_idle),
    Row("memory_growth", "worker's growth over 1,000,000 queries", f"≤ {GROWTH_WITHIN_MB:.0f} MB", memory_growth),
]
