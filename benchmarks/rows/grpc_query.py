"""Rows on what gRPC costs a query worker, as processor time of all its threads."""

import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.harness import servers, wrk
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, SLO_MS, TURN_S, TURNS, WARM_UP_S, Workbench, median_ratio

CONNECTIONS = 32
ON, OFF = ("--grpc-port", "0"), ("--grpc-port", "off")


def grpc_query(bench: Workbench) -> Outcome:
    with servers.clipper(*ON) as server:
        worker = _deployed(server)
        _by_grpc_us(server, worker, WARM_UP_S)
        _by_rest_us(server, worker, WARM_UP_S)
        rounds = [(_by_grpc_us(server, worker, TURN_S), _by_rest_us(server, worker, TURN_S)) for _ in range(TURNS)]
    by_grpc, by_rest = (list(column) for column in zip(*rounds))
    ratio = median_ratio(by_grpc, by_rest)
    numbers = {"grpc_us": by_grpc, "rest_us": by_rest, "ratio": ratio}
    return Outcome(f"{median(by_grpc):.0f} µs, {ratio:.1f} × REST", None, numbers)


def grpc_idle(bench: Workbench) -> Outcome:
    with servers.clipper(*ON) as with_grpc, servers.clipper(*OFF) as without:
        sides = [(server, _deployed(server)) for server in (with_grpc, without)]
        for server, worker in sides:
            _by_rest_us(server, worker, WARM_UP_S)
        rounds = [[_by_rest_us(server, worker, TURN_S) for server, worker in sides] for _ in range(TURNS)]
    on, off = (list(column) for column in zip(*rounds))
    ratio = median_ratio(on, off)
    return Outcome(f"{ratio:.2f} ×", None, {"on_us": on, "off_us": off, "ratio": ratio})


def _deployed(server: servers.ClipperServer) -> int:
    """Have it answer sums of four floats; the worker's process."""
    server.deploy("sum", "total:total", "--input-type", "doubles", slo_ms=SLO_MS)
    return server.process_ids()[1]


def _by_rest_us(server: servers.ClipperServer, worker: int, seconds: int) -> float:
    before_ns = _processor_ns(worker)
    load = wrk.run(server.url("sum"), FOUR, connections=CONNECTIONS, seconds=seconds)
    return (_processor_ns(worker) - before_ns) / load.requests / 1e3


def _by_grpc_us(server: servers.ClipperServer, worker: int, seconds: int) -> float:
    address = server.run("status")["grpc_address"]
    before_ns = _processor_ns(worker)
    argv = [sys.executable, "-m", "benchmarks.rows.grpc_load", address, str(CONNECTIONS), str(seconds)]
    answered = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60 + seconds).stdout
    return (_processor_ns(worker) - before_ns) / int(answered) / 1e3


def _processor_ns(pid: int) -> int:
    """Of all its threads."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))


ROWS = [
    Row("grpc_query", "worker's processor time for a query by gRPC, 32 connections", "tells", grpc_query),
    Row("grpc_idle", "the same of REST, with the port for gRPC over without", "tells", grpc_idle),
]
