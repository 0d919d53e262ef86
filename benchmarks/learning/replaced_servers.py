"""``python -m benchmarks.learning.replaced_servers``: feedback while equal servers behind a balancer are replaced.

Servers with homes of their own apply one file and share a Redis, as pods do. A balancer gives each the next query, or
the next feedback, which comes some time after its query. Every few seconds a new server begins, and the oldest is taken
out of the balancer and stopped (with ``--kill`` everything of it is killed). Feedback that is answered with 503 is sent
again, as a client would; one that is answered with 404 is lost.
"""

import argparse
import asyncio
import heapq
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness.load import post
from benchmarks.harness.servers import ClipperServer
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.learning.contexts import redis_server
from benchmarks.learning.open_feedback import Clients, shown
from clipper.base.processes.marks import kill_marked

PATIENCE_S = 15.0
AGAIN_AFTER_S = 0.5
TRIES = 20
# How soon after its query the first feedback comes.
LEAST_DELAY_S = 0.1
FILE = """
models:
  one: {model: "models:one", input_type: "float64[2]"}
  two: {model: "models:two", input_type: "float64[2]"}
applications:
  app: {links: [one, two], policy: exp3, half_life: null, slo_ms: 2000, default_output: 0}
"""
MODELS = """
def one(inputs): return [1 for _ in inputs]
def two(inputs): return [2 for _ in inputs]
"""


class Balancer:
    """Gives each request to the next server, and to the one after it if that cannot be reached."""

    def __init__(self) -> None:
        self._servers: dict[ClipperServer, Clients] = {}
        self._turn = count()

    def add(self, server: ClipperServer) -> None:
        self._servers[server] = Clients(*server.query_address(), PATIENCE_S)

    def remove_oldest(self) -> ClipperServer:
        oldest = next(iter(self._servers))
        self._servers.pop(oldest).close()
        return oldest

    @property
    def servers(self) -> list[ClipperServer]:
        return list(self._servers)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body; 503 if no server can be reached."""
        for _ in range(len(self._servers)):
            clients = list(self._servers.values())
            try:
                return await clients[next(self._turn) % len(clients)].ask(request)
            except TimeoutError:
                break
            except OSError:
                continue
        return 503, b""


class Run:
    """What was asked and told, and how it was answered.

    Attributes:
        queries, unanswered: that had an answer, or none from any server.
        acknowledged: pieces of feedback that were answered with success.
        lost: pieces that were not, by what became of them.
        again: pieces that were sent again, by why.
        waits_s: of the acknowledged pieces, with all their tries.
    """

    def __init__(self, balancer: Balancer, rate_per_s: float, delay_s: float) -> None:
        self._balancer = balancer
        self._rate_per_s = rate_per_s
        self._delay_s = delay_s
        self._chance = random.Random()
        self._due: list[tuple[float, int]] = []
        self.queries = self.unanswered = self.defaults = self.acknowledged = self._under_way = 0
        self.lost: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        self.waits_s: list[float] = []

    async def run(self, seconds: float) -> None:
        """Ask for so long, and tell everything that was asked."""
        due_s = began_s = time.perf_counter()
        end_s = began_s + seconds
        async with asyncio.TaskGroup() as group:
            while due_s < end_s or self._due or self._under_way:
                now_s = time.perf_counter()
                while due_s <= min(now_s, end_s):
                    self._under_way += 1
                    group.create_task(self._predict())
                    due_s += self._chance.expovariate(self._rate_per_s)
                while self._due and self._due[0][0] <= now_s:
                    self._under_way += 1
                    group.create_task(self._observe(heapq.heappop(self._due)[1]))
                await asyncio.sleep(0.002)

    async def _predict(self) -> None:
        status, body = await self._balancer.ask(post("/app/predict", b'{"input": [1, 2]}'))
        self._under_way -= 1
        if status != 200:
            self.unanswered += 1
            return
        answer = json.loads(body)
        self.queries += 1
        self.defaults += answer["default"]
        delay_s = self._chance.uniform(LEAST_DELAY_S, self._delay_s)
        heapq.heappush(self._due, (time.perf_counter() + delay_s, answer["query_id"]))

    async def _observe(self, query_id: int) -> None:
        began_s = time.perf_counter()
        request = post("/app/observe", b'{"query_id": %d, "label": 1}' % query_id)
        why = ""
        for _ in range(TRIES):
            status, body = await self._balancer.ask(request)
            if status == 200:
                self.acknowledged += 1
                self.waits_s.append(time.perf_counter() - began_s)
                break
            why = json.loads(body)["error"] if body else "none answered"
            if status != 503:
                self.lost[why] += 1
                break
            self.again[why] += 1
            await asyncio.sleep(AGAIN_AFTER_S)
        else:
            self.lost[why] += 1
        self._under_way -= 1


def begun(folder: Path, number: int, options: Sequence[str]) -> ClipperServer:
    """Return a server that is ready, in a new home."""
    server = ClipperServer(folder / f"home-{number}")
    server.start(*options)
    server.run("apply", str(folder / "clipper.yaml"))
    return server


def ended(server: ClipperServer, *, kills: bool) -> None:
    if kills:
        os.kill(server.run("status")["pid"], signal.SIGKILL)
        kill_marked(lambda mark: mark.startswith(f"{server.home}/run/"))
    else:
        server.stop()


def learned(server: ClipperServer) -> int:
    """Return how much feedback the application has learned from, as this server says."""
    observations: float = server.run("app", "policy", "app")["observations"]
    return round(observations)


async def measure(
    folder: Path,
    options: Sequence[str],
    servers: int,
    rate_per_s: float,
    seconds: float,
    delay_s: float,
    replace_s: float,
    *,
    kills: bool = False,
) -> tuple[Run, int, int]:
    """Return what was asked and told, what was learned, and the number of servers that were replaced."""
    (folder / "clipper.yaml").write_text(FILE)
    (folder / "models.py").write_text(MODELS)
    balancer, numbers = Balancer(), count()
    run, replaced = Run(balancer, rate_per_s, delay_s), 0
    try:
        for _ in range(servers):
            balancer.add(await asyncio.to_thread(begun, folder, next(numbers), options))
        running = asyncio.ensure_future(run.run(seconds))
        due_s = time.perf_counter()
        while not running.done():
            due_s += replace_s
            await asyncio.wait([running], timeout=max(due_s - time.perf_counter(), 0.0))
            if not running.done():
                balancer.add(await asyncio.to_thread(begun, folder, next(numbers), options))
                await asyncio.to_thread(ended, balancer.remove_oldest(), kills=kills)
                replaced += 1
        await running
        found = learned(balancer.servers[-1])
        for _ in range(20):  # a worker follows the store four times a second
            if found == run.acknowledged:
                break
            await asyncio.sleep(AGAIN_AFTER_S)
            found = learned(balancer.servers[-1])
        return run, found, replaced
    finally:
        while balancer.servers:
            await asyncio.to_thread(balancer.remove_oldest().stop)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.replaced_servers", description=__doc__)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1000.0, help="queries a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="of queries")
    parser.add_argument("--delay", type=float, default=60.0, help="seconds until the latest feedback on a query")
    parser.add_argument("--replace", type=float, default=10.0, help="seconds from one replaced server to the next")
    parser.add_argument("--kill", action="store_true", help="kill servers instead of stopping them")
    parser.add_argument("--forget", action="store_true", help="without --remember-in-store")
    arguments = parser.parse_args()
    end_in_order_at_sigterm()
    with TemporaryDirectory(prefix="clipper-replaced-") as text, redis_server(Path(text)) as store:
        options = [*store.options, *([] if arguments.forget else ["--remember-in-store"])]
        run, found, replaced = asyncio.run(
            measure(
                Path(text),
                options,
                arguments.servers,
                arguments.rate,
                arguments.seconds,
                arguments.delay,
                arguments.replace,
                kills=arguments.kill,
            )
        )
    told = run.acknowledged + run.lost.total()
    print(
        f"{replaced} servers replaced; {run.queries:,} queries, {run.defaults:,} of them defaults, beside "
        f"{run.unanswered:,} unanswered; feedback acknowledged {run.acknowledged:,} "
        f"({run.acknowledged / max(told, 1):.3%}), after {shown(run.waits_s)}; learned {found:,}; "
        f"lost {dict(run.lost) or 'none'}; sent again {dict(run.again) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
