"""``python -m benchmarks.learning.contexts``: a server whose store knows ever more contexts, up to ten million.

Each context has what one context has learned in fact, copied in the store itself, since to learn ten million would take
an hour. Then the server is asked at a steady rate, each query in a context drawn at random, while feedback in contexts
drawn at random comes at several rates.
"""

import argparse
import asyncio
import json
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import redis

from benchmarks.harness import servers
from benchmarks.harness.load import post
from benchmarks.harness.termination import end_in_order_at_sigterm
from clipper.client import Clipper
from clipper.errors import ClipperError
from clipper.learning.stores.redis import PREFIX

WORKERS = 4
# Policies learn from these, before their state is copied.
PATTERN, TAUGHT = "pattern", 50
MODELS = {"low": 0.4, "high": 0.6}
SLO_MS = 100
# Pieces of feedback in one request: an acknowledgement waits for the disk, so few at once are few a second.
AT_ONCE = 500
# Connections that ask, and others that bring feedback. Each waits for its answer, and those that bring feedback for up
# to two seconds, as Redis writes its file once a second.
ASKING, OBSERVING = 4, 40
QUERIES_PER_S = 400
ROW = [0.5] * 8
# Contexts that a script of Redis copies at once.
COPIED_AT_ONCE = 5_000
# ARGV: prefix, application, context to copy, first and last number of a copy.
COPY = """
local prefix, application = ARGV[1], ARGV[2]
local sums = redis.call('HGETALL', prefix .. 'sums:' .. application .. '/' .. ARGV[3])
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local context = string.format('u%08d', number)
  redis.call('HSET', prefix .. 'sums:' .. application .. '/' .. context, unpack(sums))
  redis.call('ZADD', prefix .. 'contexts:' .. application, redis.call('INCR', prefix .. 'revision'), context)
end
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What the server did for some seconds.

    Attributes:
        contexts: that its store knew.
        asked_per_s: pieces of feedback that were sent, as far as their answers came in time.
        observed_per_s: pieces of feedback that were acknowledged.
        refused: pieces that were answered with an error, by code.
        p50_ms, p99_ms: of its queries.
        loop_s, other_s: processor time of all workers a second, of their event loops and of their other threads.
        store_s: processor time of Redis a second.
        clients_s: processor time of this program a second.
        workers_mb: what the workers hold in memory together.
    """

    store: str
    contexts: int
    asked_per_s: int
    queries_per_s: float
    p50_ms: float
    p99_ms: float
    observed_per_s: float
    refused: dict[str, int]
    loop_s: float
    other_s: float
    store_s: float
    clients_s: float
    workers_mb: float
    store_mb: float
    disk_mb: float


def main() -> int:
    end_in_order_at_sigterm()
    parser = argparse.ArgumentParser(prog="contexts", description=__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument(
        "--rates", type=int, nargs="+", default=[0, 1_000, 3_000, 10_000], help="pieces of feedback a second"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round")
    parser.add_argument("--results", type=Path, help="a file that keeps what is measured, with what it had before")
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

    def copy(self, pattern: str, first: int, last: int) -> None:
        """Give contexts ``first`` to ``last`` what the context ``pattern`` of the same application has learned."""
        with self._opened() as database:
            (application,) = database.execute(
                "SELECT application FROM changes WHERE context = ?", (pattern,)
            ).fetchone()
            revision = database.execute("SELECT max(last) FROM revision").fetchone()[0]
            names = "WITH RECURSIVE n (i) AS (VALUES (?1) UNION ALL SELECT i + 1 FROM n WHERE i < ?2)"
            # The copies are worth nothing if this fails, so they are written once.
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA cache_size = -500000")
            # It counts contexts one by one.
            (trigger,) = database.execute("SELECT sql FROM sqlite_schema WHERE name = 'context_added'").fetchone()
            database.execute("DROP TRIGGER context_added")
            database.execute(
                f"{names} INSERT INTO sums SELECT ?3, printf('u%08d', i), name, amount FROM n, (SELECT name, amount "
                "FROM sums WHERE application = ?3 AND context = ?4)",
                (first, last, application, pattern),
            )
            database.execute(
                f"{names} INSERT INTO changes SELECT ?3, printf('u%08d', i), ?4 + i FROM n",
                (first, last, application, revision),
            )
            database.execute(trigger)
            counted = "UPDATE counted SET count = count + ? WHERE application = ? AND kind = 'contexts'"
            database.execute(counted, (last - first + 1, application))
            database.execute("UPDATE revision SET last = last + ?", (last,))

    processor_s = 0.0

    def disk_megabytes(self) -> float:
        return self.megabytes()

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

    def copy(self, pattern: str, first: int, last: int) -> None:
        """As ``SqliteFile.copy``."""
        (key,) = self._client.keys(f"{PREFIX}sums:*/{pattern}")
        application = key.decode().removeprefix(f"{PREFIX}sums:").removesuffix(f"/{pattern}")
        # The end writes at once the bytes by which a file would grow meanwhile.
        self._client.config_set("appendonly", "no")
        script = self._client.register_script(COPY)
        for start in range(first, last + 1, COPIED_AT_ONCE):
            script(args=[PREFIX, application, pattern, start, min(start + COPIED_AT_ONCE - 1, last)])
        self._client.config_set("appendonly", "yes")
        while any(self._client.info("persistence")[f"aof_rewrite_{what}"] for what in ("in_progress", "scheduled")):
            time.sleep(0.2)

    @property
    def processor_s(self) -> float:
        usage = self._client.info("cpu")
        return float(usage["used_cpu_sys"] + usage["used_cpu_user"])

    def disk_megabytes(self) -> float:
        return sum(path.stat().st_size for path in self.home.parent.glob("appendonlydir/*")) / 1e6

    def megabytes(self) -> float:
        return float(self._client.info("memory")["used_memory"]) / 1e6


@contextmanager
def sqlite_file(folder: Path) -> Iterator[SqliteFile]:
    yield SqliteFile(folder)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    port = servers.free_port()
    options = ["--bind", "127.0.0.1", "--port", f"{port}", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    # A rewrite takes a core for a minute, whenever it comes.
    options += ["--auto-aof-rewrite-percentage", "0"]
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
    started = ("--workers", f"{WORKERS}", "--max-contexts", f"{2 * max(arguments.contexts)}", *store.options)
    server.start(*started)
    try:
        with Clipper.connect(home=server.home) as clipper:
            teach(clipper)
        known = 0
        for contexts in arguments.contexts:
            server.stop()
            began_s = time.monotonic()
            store.copy(PATTERN, known + 1, contexts)
            known = contexts
            print(f"{name}: {contexts:,} contexts after {time.monotonic() - began_s:.0f} s more", flush=True)
            server.start(*started)
            for _ in range(arguments.rounds):
                for rate in arguments.rates:
                    measured = asyncio.run(round_of(name, server, store, contexts, rate, arguments.seconds))
                    print(told(measured), flush=True)
                    if arguments.results is not None:
                        keep(arguments.results, measured)
    finally:
        server.stop()


def teach(clipper: Clipper) -> None:
    """Make the application ``many``, and teach it in the context that is copied."""
    for model, factor in MODELS.items():
        clipper.deploy(model, lambda rows, factor=factor: [factor] * len(rows), input_type="float64[8]")
    clipper.create_application(
        "many", model=list(MODELS), policy="exp3", slo_ms=SLO_MS, default_output=-1, loss="absolute"
    )
    told_ = [{"input": ROW, "label": 0.4, "context": PATTERN}] * TAUGHT
    assert not any(isinstance(each, ClipperError) for each in clipper.observe_batch("many", told_))


def keep(path: Path, measured: Round) -> None:
    kept = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*kept, asdict(measured)], indent=1) + "\n")


async def round_of(
    name: str, server: servers.ClipperServer, store: SqliteFile | RedisServer, contexts: int, rate: int, seconds: float
) -> Round:
    """Ask and observe at the rates that are asked for; what the server does not keep up with is left out."""
    url = urlsplit(server.query_url)
    chance = random.Random()
    latencies_s: list[float] = []
    refused: Counter[str] = Counter()
    observed = 0
    began_s = time.perf_counter()

    def somebody() -> dict[str, object]:
        return {"input": ROW, "context": f"u{chance.randint(1, contexts):08d}"}

    async def repeat(
        path: str, make_body: Callable[[], object], period_s: float, note: Callable[[float, bytes], None]
    ) -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        due_s = began_s + chance.random() * period_s
        while due_s < began_s + seconds:
            await asyncio.sleep(due_s - time.perf_counter())
            sent_s = time.perf_counter()
            writer.write(post(path, json.dumps(make_body()).encode()))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            assert head.startswith(b"http/1.1 200"), body[:300]
            note(time.perf_counter() - sent_s, body)
            due_s = max(due_s + period_s, time.perf_counter())
        writer.close()

    def note_query(latency_s: float, _: bytes) -> None:
        latencies_s.append(latency_s)

    def note_observed(_: float, body: bytes) -> None:
        nonlocal observed
        errors = Counter(re.findall(rb'"error":"(\w+)"', body))
        refused.update({code.decode(): count for code, count in errors.items()})
        observed += AT_ONCE - errors.total()

    def told() -> object:
        return {"observations": [{**somebody(), "label": 0.4} for _ in range(AT_ONCE)]}

    pids = [worker["pid"] for worker in server.run("status")["workers"]]

    def used_s() -> tuple[float, float, float, float]:
        loops_s = sum(servers.processor_ns(pid) for pid in pids) / 1e9
        tasks = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        all_s = sum(int(path.read_text().split()[0]) for path in tasks) / 1e9
        return loops_s, all_s - loops_s, store.processor_s, time.process_time()

    before_s = used_s()
    queries = [repeat("/many/predict", somebody, ASKING / QUERIES_PER_S, note_query) for _ in range(ASKING)]
    feedback = [
        repeat("/many/observe", told, OBSERVING * AT_ONCE / rate, note_observed)
        for _ in range(OBSERVING if rate else 0)
    ]
    await asyncio.gather(*queries, *feedback)
    took_s = time.perf_counter() - began_s
    loop_s, other_s, store_s, clients_s = ((after - before) / took_s for before, after in zip(before_s, used_s()))
    return Round(
        name,
        contexts,
        rate,
        len(latencies_s) / took_s,
        median(latencies_s) * 1e3,
        quantiles(latencies_s, n=100)[-1] * 1e3,
        observed / took_s,
        dict(refused),
        loop_s,
        other_s,
        store_s,
        clients_s,
        sum(map(servers.resident_bytes, pids)) / 1e6,
        store.megabytes(),
        store.disk_megabytes(),
    )


def told(measured: Round) -> str:
    return (
        f"{measured.store}, {measured.contexts:,} contexts, {measured.asked_per_s:,}/s asked: "
        f"{measured.queries_per_s:.0f} queries/s, p50 {measured.p50_ms:.1f}, p99 {measured.p99_ms:.1f} ms; "
        f"{measured.observed_per_s:,.0f} observed/s, refused {measured.refused or 'none'}; cores: loops "
        f"{measured.loop_s:.2f}, threads {measured.other_s:.2f}, Redis {measured.store_s:.2f}, clients "
        f"{measured.clients_s:.2f}; workers {measured.workers_mb:.0f} MB, store {measured.store_mb:,.0f} MB, on disk "
        f"{measured.disk_mb:,.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
