"""Figure 11: Clipper beside a server of C++ that has the same network in its own process."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.harness import wrk
from benchmarks.harness.pages import table
from benchmarks.harness.servers import free_port, listens, process, wait_until
from benchmarks.paper.bench import Bench
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict
from benchmarks.paper.programs import built
from benchmarks.paper.training import exported_pictures
from scripts.real_models import environment

# Every request differs, so that no cache could answer it.
REQUESTS = Path(__file__).parents[1] / "yardstick" / "unique784.lua"
SLO_MS = 200
CONNECTIONS = (32, 128)
ROUNDS, ROUND_S, WARM_UP_S = 3, 3, 2

# Over the server with the model in its process: 0.94 to 1.00, and 0.82 to 0.84, less a twentieth.
PAPERS_CPP, PAPERS_PYTHON = 0.94, 0.82
ALLOWED = 0.95

# Of a load: queries and batches, and the seconds that the oldest query of each batch waited and that batches took.
Times = Mapping[str, float]


def network() -> Path:
    """The network that all three have."""
    return exported_pictures("fashion_onnx", "onnx", fashion_mnist().train) / "network.onnx"


def prepare() -> None:
    network()
    built("net_container")
    built("coupled_server")


def measure(bench: Bench) -> Numbers:
    """Rounds of all three in turns, with one network: in the server's process, in a container of C++ and of Python."""
    net = network()
    program = str(built("net_container"))
    bench.deploy_code(program, {"cpp": net}, "--language", "binary", "--input-type", "float32[784]", "--no-cache")
    bench.deploy({"python": net}, "--output", "labels", "--no-cache", "--python", str(environment("onnx")))
    with coupled_server(net) as url:
        urls = {"coupled": f"{url}/predict"}
        times: dict[str, Callable[[], Times]] = {"coupled": lambda: httpx.get(f"{url}/times").json()}
        for name in ("cpp", "python"):
            urls[name] = bench.server.url(bench.create(f"{name}-app", [name], slo_ms=SLO_MS))
            times[name] = partial(_times, bench, name)
        found = {str(connections): _compare(urls, times, connections, bench.tell) for connections in CONNECTIONS}
    return {"slo_ms": SLO_MS, "network_bytes": net.stat().st_size, "connections": found}


@contextmanager
def coupled_server(net: Path) -> Iterator[str]:
    """The program ``cpp/coupled_server.cpp``; yields its URL."""
    port = free_port()
    # Debian's ONNX Runtime says on stderr of each operator that it is registered twice.
    with process([str(net), str(port)], str(built("coupled_server")), stderr=subprocess.DEVNULL):
        wait_until(partial(listens, port), f"the coupled server on port {port}")
        yield f"http://127.0.0.1:{port}"


def _times(bench: Bench, model: str) -> Times:
    metrics = bench.server.metrics()
    return {
        name: metrics.total(metric, model=model)
        for name, metric in (
            ("queries", "clipper_batch_size_sum"),
            ("waited_s", "clipper_queue_wait_seconds_sum"),
            ("batches", "clipper_batch_latency_seconds_count"),
            ("took_s", "clipper_batch_latency_seconds_sum"),
        )
    }


def _compare(
    urls: Mapping[str, str], times: Mapping[str, Callable[[], Times]], connections: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    loads: dict[str, list[wrk.Load]] = {server: [] for server in urls}
    spent: dict[str, list[Times]] = {server: [] for server in urls}
    for url in urls.values():
        wrk.run(url, REQUESTS, connections=connections, seconds=WARM_UP_S)
    for _ in range(ROUNDS):
        for server, url in urls.items():
            before = times[server]()
            loads[server].append(wrk.run(url, REQUESTS, connections=connections, seconds=ROUND_S))
            after = times[server]()
            spent[server].append({name: after[name] - before[name] for name in before})
    found = {server: describe(loads[server], spent[server], connections) for server in urls}
    rates = ", ".join(f"{server} {row['requests_per_s']:,.0f}" for server, row in found.items())
    tell(f"{connections} connections, requests/s: {rates}")
    return found


def describe(loads: list[wrk.Load], spent: list[Times], connections: int) -> dict[str, float]:
    """Of all rounds. Connections that wait are all busy, so a query takes ``connections / rate`` in the mean."""
    rate = median(load.requests_per_s for load in loads)
    total = {name: sum(each[name] for each in spent) for name in spent[0]}
    mean_ms = 1e3 * connections / rate
    queue_ms = 1e3 * total["waited_s"] / max(total["batches"], 1)
    batch_ms = 1e3 * total["took_s"] / max(total["batches"], 1)
    return {
        "requests_per_s": round(rate, 1),
        "p99_ms": round(median(load.p99_ms for load in loads), 2),
        "failed": sum(load.failed + load.broken for load in loads),
        "mean_ms": round(mean_ms, 3),
        "queue_ms": round(queue_ms, 3),
        "batch_ms": round(batch_ms, 3),
        "mean_batch": round(total["queries"] / max(total["batches"], 1), 1),
    }


def judge(numbers: Numbers) -> Verdict:
    found = numbers["connections"]
    cpp, python = (
        {
            connections: row[name]["requests_per_s"] / row["coupled"]["requests_per_s"]
            for connections, row in found.items()
        }
        for name in ("cpp", "python")
    )
    failed = sum(row[server]["failed"] for row in found.values() for server in ("cpp", "python"))
    reason = (
        "what is compared is the whole of both servers: the network takes little time, and the coupled server reads "
        "HTTP and JSON in C++ and sends nothing to another process, while Clipper's worker is in Python. The paper's "
        "networks ran on a GPU for tens of ms a batch, beside which either server took little"
    )
    return Verdict(
        (
            Claim(
                "with containers in C++ Clipper answers 0.94 to 1.00 of a server with the model in its process",
                _ratios(cpp),
                max(cpp.values()) >= ALLOWED * PAPERS_CPP,
                reason,
            ),
            Claim(
                "with containers in Python 0.82 to 0.84",
                _ratios(python),
                max(python.values()) >= ALLOWED * PAPERS_PYTHON,
                reason,
            ),
        ),
        (Claim("no query fails", f"{failed} did", not failed),),
    )


def _ratios(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{ratio:.2f} at {connections} connections" for connections, ratio in ratios.items())


def describe_table(numbers: Numbers) -> str:
    names = {"coupled": "coupled, C++", "cpp": "Clipper, C++ container", "python": "Clipper, Python container"}
    rows = [
        [
            connections,
            names[server],
            f"{row['requests_per_s']:,.0f}",
            f"{row['mean_ms']:.2f} / {row['p99_ms']:.2f}",
            f"{row['queue_ms']:.2f}",
            f"{row['batch_ms']:.2f}",
            f"{max(row['mean_ms'] - row['queue_ms'] - row['batch_ms'], 0.0):.2f}",
            f"{row['mean_batch']:.0f}",
        ]
        for connections, servers in numbers["connections"].items()
        for server, row in servers.items()
    ]
    head = ["connections", "server", "requests/s", "mean / p99, ms", "in the queue, ms", "in its batch, ms", "rest, ms"]
    return table([*head, "mean batch"], rows)


FIGURE = Figure(
    "coupling",
    "figure 11: beside a server with the model in its process",
    measure,
    judge,
    describe_table,
    is_timed=True,
    prepare=prepare,
)
