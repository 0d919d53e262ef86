"""Rows on Clipper's Python client: processor time of the client and of the worker, for arrays over lists."""

import subprocess
import sys
from collections.abc import Callable
from statistics import median

from benchmarks.harness import servers
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import SLO_MS, TURN_S, TURNS, WARM_UP_S, Workbench, median_ratio

_SUM = "sum784"


def arrays_over_lists(client: str) -> Callable[[Workbench], Outcome]:
    def measure(bench: Workbench) -> Outcome:
        with servers.clipper() as server:
            server.deploy(_SUM, "total:total", "--input-type", "float32[784]", slo_ms=SLO_MS)
            for form in ("array", "list"):
                _load(server, client, form, WARM_UP_S)
            rounds = [
                (*_load(server, client, "array", TURN_S), *_load(server, client, "list", TURN_S)) for _ in range(TURNS)
            ]
        its_array, worker_array, its_list, worker_list = (list(column) for column in zip(*rounds))
        its, worker = median_ratio(its_array, its_list), median_ratio(worker_array, worker_list)
        of_client = f"client {median(its_array):.0f} µs, {its:.2f} × a list"
        of_worker = f"worker {median(worker_array):.0f} µs, {worker:.2f} ×"
        numbers = {
            "client_array_us": its_array,
            "client_list_us": its_list,
            "worker_array_us": worker_array,
            "worker_list_us": worker_list,
            "client_ratio": its,
            "worker_ratio": worker,
        }
        return Outcome(f"{of_client}; {of_worker}", None, numbers)

    return measure


def _load(server: servers.ClipperServer, client: str, form: str, seconds: int) -> tuple[float, float]:
    """The client's and the worker's processor time for an answer or a piece of feedback, in microseconds."""
    worker = server.process_ids()[1]
    argv = [sys.executable, "-m", "benchmarks.rows.client_load", server.query_url, _SUM, client, form, str(seconds)]
    before_ns = servers.processor_ns(worker)
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60 + seconds).stdout.split()
    return float(told[1]), (servers.processor_ns(worker) - before_ns) / int(told[0]) / 1e3


ROWS = [
    Row(
        f"client_{client}",
        f"processor time for 784 float32 by Clipper's own client, {how}, as an array over as a list",
        "tells",
        arrays_over_lists(client),
    )
    for client, how in (
        ("blocking", "a call at a time"),
        ("async", "32 calls at a time"),
        ("feedback", "for feedback in batches of 64"),
    )
]
