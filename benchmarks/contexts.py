"""``python -m benchmarks.contexts``: a server whose store knows millions of contexts, beside one of a thousand.

Each context has what one context has learned in fact, copied in the store itself, since to learn ten million would take
an hour. Then two applications of one server are asked in turn, each query in a context drawn at random, while feedback
comes at a steady rate: ``few`` has a thousand contexts, ``many`` has all of them.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import redis

from benchmarks import servers
from benchmarks.load import post
from benchmarks.termination import end_in_order_at_sigterm
from clipper.client import Clipper
from clipper.errors import ClipperError
from clipper.selection.stores.redis import PREFIX

WORKERS = 4
FEW = 1_000
# What is learned from, before it is copied.
PATTERN, TAUGHT = "pattern", 50
MODELS = {"low": 0.4, "high": 0.6}
SLO_MS = 100
# Pieces of feedback in one request: an acknowledgement waits for the disk, so few at once are few a second.
AT_ONCE = 500
# Connections that ask, and others that bring feedback; each waits for its answer.
ASKING, OBSERVING = 4, 8
QUERIES_PER_S = 400
ROW = [0.5] * 8
# Commands to Redis on their way at once.
PIPELINED = 20_000


@dataclass(frozen=True, slots=True)
class Round:
    """What one application did for some seconds.

    Attributes:
        p50_ms, p99_ms: of its queries.
        observed_per_s: pieces of feedback that were acknowledged.
        worker_us: processor time of all workers, in microseconds for each piece of feedback, queries included.
    """

    queries_per_s: float
    p50_ms: float
    p99_ms: float
    observed_per_s: float
    worker_us: float


def main() -> int:
    end_in_order_at_sigterm()
    parser = argparse.ArgumentParser(prog="contexts", description=__doc__)
    parser.add_argument("--contexts", type=int, default=10_000_000)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--rate", type=int, default=10_000, help="pieces of feedback a second")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round")
    arguments = parser.parse_args()
    for name in arguments.stores:
        with TemporaryDirectory(prefix="clipper-contexts-") as folder, STORES[name](Path(folder)) as store:
            measure(name, store, arguments)
    return 0


class SqliteFile:
    """The store of a server's own home."""

    options: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"

    def copy(self, pattern: str, number: int) -> None:
        """Give as many contexts as that what the context ``pattern`` of the same application has learned."""
        with self._opened() as database:
            (application,) = database.execute(
                "SELECT application FROM changes WHERE context = ?", (pattern,)
            ).fetchone()
            last = database.execute("SELECT max(last) FROM revision").fetchone()[0]
            names = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
            database.execute("PRAGMA synchronous = OFF")
            database.execute(
                f"{names} INSERT INTO sums SELECT ?2, printf('u%08d', i), name, amount FROM n, (SELECT name, amount "
                "FROM sums WHERE application = ?2 AND context = ?3)",
                (number, application, pattern),
            )
            database.execute(
                f"{names} INSERT INTO changes SELECT ?2, printf('u%08d', i), ?3 + i FROM n", (number, application, last)
            )
            database.execute("UPDATE revision SET last = last + ?", (number,))

    def megabytes(self) -> float:
        return sum(path.stat().st_size for path in self.home.glob("selection.sqlite3*")) / 1e6

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.home / "selection.sqlite3")
        with database:
            yield database
        database.close()


class RedisServer:
    """A redis-server of its own, with an append-only file."""

    def __init__(self, folder: Path, port: int) -> None:
        self.home = folder / "home"
        self.options = ("--store", f"redis://127.0.0.1:{port}")
        # Any: redis-py declares its results for both kinds of decoding and of waiting at once.
        self._client: Any = redis.Redis(port=port)

    def copy(self, pattern: str, number: int) -> None:
        """As ``SqliteFile.copy``."""
        (key,) = self._client.keys(f"{PREFIX}sums:*/{pattern}")
        application = key.decode().removeprefix(f"{PREFIX}sums:").removesuffix(f"/{pattern}")
        sums = self._client.hgetall(key)
        last = int(self._client.get(f"{PREFIX}revision") or 0)
        for start in range(1, number + 1, PIPELINED):
            names = {f"u{place:08d}": last + place for place in range(start, min(start + PIPELINED, number + 1))}
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.hset(f"{PREFIX}sums:{application}/{name}", mapping=sums)
            pipe.zadd(f"{PREFIX}contexts:{application}", names)
            pipe.zadd(f"{PREFIX}changes", {f"{application}/{name}": revision for name, revision in names.items()})
            pipe.execute()
        self._client.incrby(f"{PREFIX}revision", number)

    def megabytes(self) -> float:
        return float(self._client.info("memory")["used_memory"]) / 1e6


@contextmanager
def sqlite_file(folder: Path) -> Iterator[SqliteFile]:
    yield SqliteFile(folder)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    port = servers.free_port()
    options = ["--port", f"{port}", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as process:
        try:
            servers.wait_until(lambda: servers.listens(port), f"redis-server on port {port}")
            yield RedisServer(folder, port)
        finally:
            process.terminate()


STORES: dict[str, Callable[[Path], AbstractContextManager[SqliteFile | RedisServer]]] = {
    "sqlite": sqlite_file,
    "redis": redis_server,
}


def measure(name: str, store: SqliteFile | RedisServer, arguments: argparse.Namespace) -> None:
    server = servers.ClipperServer(store.home)
    started = ("--workers", f"{WORKERS}", "--max-contexts", f"{2 * arguments.contexts}", *store.options)
    server.start(*started)
    try:
        with Clipper.connect(home=server.home) as clipper:
            for model, factor in MODELS.items():
                clipper.deploy(model, lambda rows, factor=factor: [factor] * len(rows), input_type="float64[8]")
            for application in ("few", "many"):
                clipper.create_application(
                    application, model=list(MODELS), policy="exp3", slo_ms=SLO_MS, default_output=-1, loss="absolute"
                )
                told_ = [{"input": ROW, "label": 0.4, "context": f"{PATTERN}-{application}"}] * TAUGHT
                assert not any(isinstance(each, ClipperError) for each in clipper.observe_batch(application, told_))
        server.stop()
        for application, number in (("few", FEW), ("many", arguments.contexts)):
            began_s = time.monotonic()
            store.copy(f"{PATTERN}-{application}", number)
            print(f"{name}: {number:,} contexts in {time.monotonic() - began_s:.0f} s; {store.megabytes():,.0f} MB")
        server.start(*started)
        done: dict[str, list[Round]] = {"few": [], "many": []}
        for _ in range(arguments.rounds):
            for application, number in (("few", FEW), ("many", arguments.contexts)):
                done[application].append(asyncio.run(round_of(server, application, number, arguments)))
        for application, rounds in done.items():
            print(f"{name}, {application}: {told(rounds)}; {memory(server)}; store {store.megabytes():,.0f} MB")
    finally:
        server.stop()
    sys.stdout.flush()


async def round_of(
    server: servers.ClipperServer, application: str, contexts: int, arguments: argparse.Namespace
) -> Round:
    """Ask and observe at the rates that are asked for; what the server does not keep up with is left out."""
    url = urlsplit(server.query_url)
    chance = random.Random()
    latencies_s: list[float] = []
    observed = 0
    began_s = time.perf_counter()

    def somebody() -> dict[str, object]:
        return {"input": ROW, "context": f"u{chance.randint(1, contexts):08d}"}

    async def repeat(
        path: str, make_body: Callable[[], object], period_s: float, note: Callable[[float], None]
    ) -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        due_s = began_s + chance.random() * period_s
        while due_s < began_s + arguments.seconds:
            await asyncio.sleep(due_s - time.perf_counter())
            sent_s = time.perf_counter()
            writer.write(post(path, json.dumps(make_body()).encode()))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            assert head.startswith(b"http/1.1 200") and b'"error"' not in body, body[:300]
            note(time.perf_counter() - sent_s)
            due_s = max(due_s + period_s, time.perf_counter())
        writer.close()

    def note_observed(latency_s: float) -> None:
        nonlocal observed
        observed += AT_ONCE

    def told() -> object:
        return {"observations": [{**somebody(), "label": 0.4} for _ in range(AT_ONCE)]}

    pids = [worker["pid"] for worker in server.run("status")["workers"]]
    before_ns = sum(servers.processor_ns(pid) for pid in pids)
    queries = [
        repeat(f"/{application}/predict", somebody, ASKING / QUERIES_PER_S, latencies_s.append) for _ in range(ASKING)
    ]
    feedback = [
        repeat(f"/{application}/observe", told, OBSERVING * AT_ONCE / arguments.rate, note_observed)
        for _ in range(OBSERVING)
    ]
    await asyncio.gather(*queries, *feedback)
    took_ns = sum(servers.processor_ns(pid) for pid in pids) - before_ns
    return Round(
        len(latencies_s) / arguments.seconds,
        median(latencies_s) * 1e3,
        quantiles(latencies_s, n=100)[-1] * 1e3,
        observed / arguments.seconds,
        took_ns / 1e3 / observed,
    )


def told(rounds: Sequence[Round]) -> str:
    def middle(of: Callable[[Round], float]) -> float:
        return median(map(of, rounds))

    return (
        f"{middle(lambda each: each.queries_per_s):,.0f} queries/s, p50 {middle(lambda each: each.p50_ms):.1f} ms, "
        f"p99 {middle(lambda each: each.p99_ms):.1f} ms; {middle(lambda each: each.observed_per_s):,.0f} pieces of "
        f"feedback/s, {middle(lambda each: each.worker_us):.0f} us each"
    )


def memory(server: servers.ClipperServer) -> str:
    pids = [worker["pid"] for worker in server.run("status")["workers"]]
    sizes_mb = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6 for pid in pids]
    return f"workers of {min(sizes_mb):.0f} to {max(sizes_mb):.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
