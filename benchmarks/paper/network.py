"""Figure 6 over networks of two speeds: where the link to the replicas becomes the limit."""

import asyncio
import base64
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness.load import post
from benchmarks.harness.pages import table
from benchmarks.harness.servers import free_port, wait_until
from benchmarks.paper.bench import MODELS, Bench
from benchmarks.paper.client import Address
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict
from benchmarks.paper.namespaces import Link, behind_link
from benchmarks.paper.replicas import describe, load
from clipper.control.address import UnixAddress
from clipper.control.client import Connections
from clipper.control.messages import Apply
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, ReplicaAddress, Snapshot, VersionSnapshot
from clipper.settings.application import Link as ModelLink
from clipper.settings.version import Batching

COUNTS = (1, 2, 3, 4)
# The paper has switches of 10 and of 1 Gbit/s. Here nothing but the processors bounds the faster one.
RATES: dict[str, str | None] = {"unlimited": None, "1 Gbit/s": "1gbit"}
# A picture of 224 by 224 pixels, as the bytes that they are. 1 Gbit/s is some 830 of them a second.
PICTURE_BYTES = 150_528
SLO_MS, MAX_BATCH = 2_000, 16
CONNECTIONS_A_REPLICA = 40
WARM_UP_S, SECONDS = 2.0, 4.0
READY_WITHIN_S = 60.0
APPLY_WITHIN_S = 30.0
NAME, CONTROL = "pictures", "worker.sock"

PAPERS_FAST, PAPERS_SLOW = 3.95, 1.96
LEAST_FAST = 0.9 * 4
# Of four replicas over the slow link, over as many as fill it.
LEVEL = 1.15


def measure(bench: Bench) -> Numbers:
    """Over each link, each number of replicas with as many clients for each of them.

    Clipper's managers start containers on this machine, or by Ray. So the query worker is told here, as a supervisor
    tells it, of containers that run in a namespace of their own.
    """
    links = {name: _measure(bench, name, rate) for name, rate in RATES.items()}
    return {
        "slo_ms": SLO_MS,
        "picture_bytes": PICTURE_BYTES,
        "connections_a_replica": CONNECTIONS_A_REPLICA,
        "seconds": SECONDS,
        "links": links,
    }


def _measure(bench: Bench, name: str, rate: str | None) -> list[dict[str, Any]]:
    rows = []
    with behind_link(rate) as link, TemporaryDirectory(prefix="clipper-") as folder, ExitStack() as stack:
        token = secrets.token_hex(16)
        addresses = [stack.enter_context(container(link, Path(folder), number, token)) for number in range(max(COUNTS))]
        worker = stack.enter_context(query_worker(Path(folder)))
        requests = count_requests()
        for generation, count in enumerate(COUNTS, 1):
            _apply(Path(folder), generation, addresses[:count])
            connections = CONNECTIONS_A_REPLICA * count
            load(worker, connections, WARM_UP_S, requests)
            row = {"replicas": count, **describe(load(worker, connections, SECONDS, requests), SECONDS)}
            bench.tell(f"{name}, {count} replicas: {row['outputs_per_s']:,.0f} outputs/s, p99 {row['p99_ms']:.0f} ms")
            rows.append(row)
    return rows


@contextmanager
def container(link: Link, folder: Path, number: int, token: str) -> Iterator[ReplicaAddress]:
    """A container of ``models/pictures.py`` at the link's far end."""
    artifact = folder / f"artifact-{number}"
    shutil.copytree(MODELS, artifact / "code")
    port = 7000 + number
    command = [*link.inside, sys.executable, "-m", "clipper.model.runtime", f"--listen=tcp:{link.address}:{port}"]
    options = [f"--model={NAME}", "--version=1", f"--artifact={artifact}", "--loader=import", "--input-type=bytes"]
    environment = os.environ | {"CLIPPER_TOKEN": token}
    with _process([*command, *options, f"--target={NAME}:predict"], folder / f"container-{number}.log", environment):
        yield ReplicaAddress(f"{NAME}:1#{number}", f"tcp:{link.address}:{port}", token)


@contextmanager
def query_worker(folder: Path) -> Iterator[Address]:
    """A query worker that knows nothing yet."""
    port = free_port()
    config = {"index": 0, "instance": 1, "host": "127.0.0.1", "port": port, "control": str(folder / CONTROL)}
    config["store"] = f"sqlite:{folder / 'selection.sqlite3'}"
    command = [sys.executable, "-m", "clipper.worker", "--config", json.dumps(config)]
    with _process(command, folder / "worker.log", os.environ):
        # It takes queries once it is told what to serve.
        wait_until((folder / CONTROL).exists, "the query worker's control channel")
        yield "127.0.0.1", port


@contextmanager
def _process(command: Sequence[str], log: Path, environment: Any) -> Iterator[None]:
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield
    finally:
        child.terminate()
        child.wait(READY_WITHIN_S)


def _apply(folder: Path, generation: int, replicas: Sequence[ReplicaAddress]) -> None:
    """Tell the worker to serve by these replicas.

    Raises:
        RuntimeError: it cannot dial them.
    """
    batching = Batching(max_batch=MAX_BATCH)
    version = VersionSnapshot("1", "bytes", batching=batching, cache=False, replicas=tuple(replicas))
    application = ApplicationSnapshot(NAME, "bytes", SLO_MS, default_output="-1", links=(ModelLink(NAME),), id=NAME)
    snapshot = Snapshot(generation, (application,), (ModelSnapshot(NAME, "1", (version,)),))
    address = UnixAddress(str(folder / CONTROL))

    async def told() -> Any:
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                applied = await Connections().ask(address, Apply(snapshot), APPLY_WITHIN_S)
                if not applied.unlinked:
                    return
                await asyncio.sleep(0.2)  # containers that still start

    asyncio.run(told())


def count_requests() -> Iterator[bytes]:
    """Requests of which no two ask the same."""
    rest = base64.b64encode(os.urandom(PICTURE_BYTES - 12))
    for number in itertools.count():
        first = base64.b64encode(b"%012d" % number)
        yield post(f"/{NAME}/predict", b'{"input":"%b%b"}' % (first, rest))


def judge(numbers: Numbers) -> Verdict:
    fast, slow = (_rates(numbers, name) for name in RATES)
    mbit_per_s = max(slow) * numbers["picture_bytes"] * 8 / 1e6
    tails = numbers["links"]["1 Gbit/s"]
    return Verdict(
        (
            Claim(
                f"over the faster network throughput grows {PAPERS_FAST} times from one replica to four",
                f"{fast[-1] / fast[0]:.2f} times",
                fast[-1] >= LEAST_FAST * fast[0],
                "client, worker and link share two cores, which move pictures of 150 KB",
            ),
            Claim(
                "over 1 Gbit/s the network is the limit: 2, 3 and 4 replicas answer 1.80, 1.96 and 1.95 times as much "
                "as one",
                f"{', '.join(f'{rate / slow[0]:.2f}' for rate in slow[1:])} times; {mbit_per_s:,.0f} Mbit/s of "
                "pictures at most",
                slow[-1] <= LEVEL * slow[-2] and slow[-1] < 0.8 * fast[-1] and mbit_per_s >= 800,
                "two cores are full before the link is",
            ),
            Claim(
                "beyond it latency grows: p99 49 ms with one replica, 160 ms with four",
                f"{tails[0]['p99_ms']:.0f} and {tails[-1]['p99_ms']:.0f} ms",
                tails[-1]["p99_ms"] >= 1.25 * tails[0]["p99_ms"],
                "the clients that wait for each replica are as many, and the link was not full",
            ),
        ),
    )


def _rates(numbers: Numbers, name: str) -> list[float]:
    return [row["outputs_per_s"] for row in numbers["links"][name]]


def describe_table(numbers: Numbers) -> str:
    rows = []
    for number, count in enumerate(COUNTS):
        found = [numbers["links"][name][number] for name in RATES]
        cells = [f"{row['outputs_per_s']:,.0f} ({row['mean_ms']:.0f} / {row['p99_ms']:.0f})" for row in found]
        rows.append([str(count), *cells])
    return "Outputs a second, and the mean and 99th percentile of the latency in ms:\n\n" + table(
        ["replicas", *RATES], rows
    )


FIGURE = Figure("network", "figure 6: the network as the limit", measure, judge, describe_table, is_timed=True)
