"""``python -m benchmarks.learning.open_feedback``: feedback from clients that wait neither for each other nor for long.

Each request is sent when it is due, on a connection of its own if all others wait for their answers, and its client
leaves when its patience is over. Feedback comes in lists on inputs in contexts drawn at random, or by the piece on
queries that were asked half a second before. Others ask for predictions meanwhile, at a steady rate.
"""

import argparse
import asyncio
import json
import random
import re
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from benchmarks.harness import servers
from benchmarks.harness.load import post
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.learning.contexts import PATTERN, QUERIES_PER_S, ROW, STORES, WORKERS, teach
from clipper.client import Clipper

# Lists are drawn from as many contexts as this, or from all if these are fewer.
LISTED_CONTEXTS = 40_000
# A person clicks after a while.
JUDGED_AFTER_S = 0.5
LABEL = 0.4


class Clients:
    """As many as are needed, each with one request at a time."""

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        self._address = host, port
        self._patience_s = patience_s
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._is_closed = False

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            OSError: the server closed the connection, or (TimeoutError) did not answer in time.
        """
        async with asyncio.timeout(self._patience_s):
            reader, writer = self._free.pop() if self._free else await self._connect()
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            except asyncio.IncompleteReadError as error:
                writer.close()
                raise ConnectionResetError("no answer") from error
            except BaseException:
                writer.close()
                raise
        if self._is_closed:
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head[9:12]), body

    def close(self) -> None:
        self._is_closed = True
        for _, writer in self._free:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address)
        # Else clients that left would keep their ports for a minute, and a search among these takes all of a processor.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return reader, writer


class Round:
    """What was asked at one rate, and how it was answered.

    Attributes:
        latencies_s: of queries, from when each was due.
        waits_s: of acknowledged feedback.
        acknowledged: pieces.
        others: pieces, or queries, that were not, by what became of them.
    """

    def __init__(self, url: str, contexts: int, patience_s: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._clients = Clients(parts.hostname, parts.port, patience_s)
        self._contexts = contexts
        self._chance = random.Random()
        self.latencies_s: list[float] = []
        self.waits_s: list[float] = []
        self.acknowledged = 0
        self.others: Counter[str] = Counter()

    async def run(self, rate: float, at_once: int, seconds: float) -> float:
        """Feedback in lists of ``at_once``; with 0 by the piece, on queries. Return how long it took."""
        began_s = time.perf_counter()
        if at_once:
            among = random.Random(1)
            lists = [self._list(among, at_once) for _ in range(LISTED_CONTEXTS // at_once)]
            await asyncio.gather(
                self._repeat(rate / at_once, seconds, lambda _: self._observe(among.choice(lists), at_once)),
                self._repeat(QUERIES_PER_S, seconds, self._predict),
            )
        else:
            await self._repeat(rate, seconds, self._predict_and_judge)
        self._clients.close()
        return time.perf_counter() - began_s

    async def _repeat(
        self, per_s: float, seconds: float, act: Callable[[float], Coroutine[None, None, object]]
    ) -> None:
        due_s = began_s = time.perf_counter()
        async with asyncio.TaskGroup() as acts:
            while due_s < began_s + seconds:
                await asyncio.sleep(due_s - time.perf_counter())
                acts.create_task(act(due_s))
                due_s += self._chance.expovariate(per_s)

    def _context(self) -> str:
        return f"u{self._chance.randint(1, self._contexts):08d}"

    def _list(self, among: random.Random, at_once: int) -> bytes:
        pieces = [
            {"input": ROW, "label": LABEL, "context": f"u{among.randint(1, self._contexts):08d}"}
            for _ in range(at_once)
        ]
        return post("/many/observe", json.dumps({"observations": pieces}).encode())

    async def _predict(self, due_s: float) -> int | None:
        try:
            status, body = await self._clients.ask(
                post("/many/predict", json.dumps({"input": ROW, "context": self._context()}).encode())
            )
        except OSError as error:
            self.others[f"query: {type(error).__name__}"] += 1
            return None
        self.latencies_s.append(time.perf_counter() - due_s)
        answer = json.loads(body)
        if status != 200 or answer["default"]:
            self.others[f"query: {answer.get('default_reason', answer.get('error'))}"] += 1
        query_id: int | None = answer.get("query_id")
        return query_id

    async def _predict_and_judge(self, due_s: float) -> None:
        query_id = await self._predict(due_s)
        if query_id is not None:
            await asyncio.sleep(JUDGED_AFTER_S)
            body = json.dumps({"query_id": query_id, "label": LABEL}).encode()
            await self._observe(post("/many/observe", body), 1)

    async def _observe(self, request: bytes, pieces: int) -> None:
        sent_s = time.perf_counter()
        try:
            status, body = await self._clients.ask(request)
        except OSError as error:
            self.others[type(error).__name__] += pieces
            return
        errors = Counter(code.decode() for code in re.findall(rb'"error":"(\w+)"', body))
        if status != 200:
            self.others[f"{status} {' '.join(errors)}"] += pieces
            return
        self.others.update(errors)
        self.acknowledged += pieces - errors.total()
        self.waits_s.append(time.perf_counter() - sent_s)


def measure(name: str, server: servers.ClipperServer, contexts: int, arguments: argparse.Namespace) -> None:
    pids = [worker["pid"] for worker in server.run("status")["workers"]]
    for at_once in arguments.at_once:
        for rate in arguments.rates:
            one = Round(server.query_url, contexts, arguments.patience)
            before_s = sum(servers.processor_ns(pid) for pid in pids) / 1e9
            took_s = asyncio.run(one.run(rate, at_once, arguments.seconds))
            loops = (sum(servers.processor_ns(pid) for pid in pids) / 1e9 - before_s) / took_s
            kind = f"in lists of {at_once}" if at_once else "by the piece, on queries"
            print(
                f"{name}, {contexts:,} contexts, {rate:,}/s {kind}, patience {arguments.patience:g} s: "
                f"{one.acknowledged / took_s:,.0f}/s acknowledged after {shown(one.waits_s)}; "
                f"queries {shown(one.latencies_s)}; others {dict(one.others) or 'none'}; "
                f"workers' loops {loops:.2f} cores",
                flush=True,
            )
    assert [worker["pid"] for worker in server.run("status")["workers"]] == pids, "a worker was replaced"


def shown(times_s: list[float]) -> str:
    if len(times_s) < 2:
        return "no time"
    cuts = quantiles(times_s, n=100)
    return f"p50 {cuts[49] * 1e3:,.0f}, p99 {cuts[98] * 1e3:,.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.open_feedback", description=__doc__)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=[*STORES])
    parser.add_argument("--contexts", type=int, default=300_000)
    parser.add_argument("--rates", type=int, nargs="+", default=[5_000, 20_000, 40_000], help="pieces a second")
    parser.add_argument("--at-once", type=int, nargs="+", default=[500, 20], help="pieces of a list; 0: by query id")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds after which a client leaves")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one round")
    arguments = parser.parse_args()
    end_in_order_at_sigterm()
    for name in arguments.stores:
        with TemporaryDirectory(prefix="clipper-open-feedback-") as folder, STORES[name](Path(folder)) as store:
            server = servers.ClipperServer(store.home)
            started = ("--workers", f"{WORKERS}", "--max-contexts", f"{2 * arguments.contexts}", *store.options)
            server.start(*started)
            try:
                with Clipper.connect(home=server.home) as clipper:
                    teach(clipper)
                server.stop()
                store.copy(PATTERN, 1, arguments.contexts)
                server.start(*started)
                measure(name, server, arguments.contexts, arguments)
            finally:
                server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
