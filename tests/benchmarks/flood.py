"""``python -m tests.benchmarks.flood``: the most feedback that a client may send at once, and what it does to others.

Twice: 64 requests of 10,000 observations each, all sent before the first answer is read; then feedback in 65,000
contexts, each of its own. Others ask for predictions meanwhile, one at a time.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks.harness.load import Answer, LoadClient, post
from benchmarks.harness.servers import ClipperServer, clipper
from benchmarks.harness.workbench import HERE
from clipper import Clipper
from clipper.worker.frontend.limits import MAX_PIPELINED
from clipper.worker.frontend.observe_body import MAX_OBSERVATIONS
from tests.benchmarks.fuzz_live import Answers, loop_cpu_s

CONTEXTS = 65_000
CONNECTIONS = 16
ALONE_S = 5.0
WITHIN_S = 900.0
# One worker may grow by the requests that it holds, and by the memory that its allocator keeps beside them.
MAX_GROWTH_BYTES = 400e6
MAX_CONTEXTS = 10_000
# Ids of feedback are kept for ten minutes, a million at most of 140 bytes; SQLite's log is kept as large as it was.
MAX_STORE_BYTES = 250e6
POLICY = "exp3"


class Waits(NamedTuple):
    """For what others waited, in ms, of so many queries."""

    count: int
    p50: float
    p99: float
    most: float


class Others:
    """Ask for a prediction, again and again, on one connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._took_s: list[float] = []
        self._number = 0
        self._client = LoadClient[None](*address, 1, self._ask, self._keep)

    async def __aenter__(self) -> "Others":
        self._task = asyncio.create_task(self._client.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.stop()
        await self._task

    def waits(self) -> Waits:
        cuts = quantiles(self._took_s, n=100)
        return Waits(len(self._took_s), cuts[49] * 1e3, cuts[98] * 1e3, max(self._took_s) * 1e3)

    def _ask(self) -> tuple[None, bytes]:
        self._number += 1
        return None, post("/others/predict", b'{"input":[%d,1]}' % self._number)

    def _keep(self, answer: Answer[None]) -> None:
        assert answer.status == 200, answer
        self._took_s.append(answer.latency_s)


async def many_observations(address: tuple[str, int]) -> Counter[str]:
    """All that one connection may send before it reads an answer."""
    items = ",".join(f'{{"input":[{number % 50},1],"label":1}}' for number in range(MAX_OBSERVATIONS))
    request = post("/taught/observe", f'{{"observations":[{items}]}}'.encode())
    _, answers = await asyncio.get_running_loop().create_connection(Answers, *address)
    answers.ask(request * MAX_PIPELINED, MAX_PIPELINED)
    await asyncio.wait_for(answers.ended.wait(), WITHIN_S)
    outcomes: Counter[str] = Counter()
    for status, body in answers.got:
        if status != 200:
            outcomes[f"{status} {msgspec.json.decode(body)['error']}"] += 1
            continue
        for each in msgspec.json.decode(body)["observations"]:
            outcomes[each.get("error", "observed")] += 1
    answers.transport.abort()
    return outcomes


async def many_contexts(address: tuple[str, int]) -> Counter[str]:
    """Feedback, each in a context of its own."""
    outcomes: Counter[str] = Counter()
    number = 0

    def ask() -> tuple[None, bytes]:
        nonlocal number
        number += 1
        if number == CONTEXTS:
            client.stop()
        return None, post("/taught/observe", b'{"input":[1,1],"label":1,"context":"random-%d"}' % (number * 7919))

    def count(answer: Answer[None]) -> None:
        outcomes["observed" if answer.status == 200 else str(answer.body)] += 1

    client = LoadClient[None](*address, CONNECTIONS, ask, count)
    await client.run()
    return outcomes


FLOODS = {"observations": many_observations, "contexts": many_contexts}


async def flood(server: ClipperServer, names: list[str]) -> list[str]:
    """Returns what must not be."""
    address, found = server.query_address(), []
    pid = server.run("status")["workers"][0]["pid"]
    async with Others(address) as others:
        await asyncio.sleep(ALONE_S)
    print(f"others alone: {_shown(others.waits())}", flush=True)
    for name in names:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the peak
        before_bytes, began_s, cpu_s = _memory_bytes(pid, "VmRSS"), time.monotonic(), loop_cpu_s(pid)
        async with Others(address) as others:
            outcomes = await FLOODS[name](address)
        took_s, cpu_s = time.monotonic() - began_s, loop_cpu_s(pid) - cpu_s
        peak_bytes, after_bytes = _memory_bytes(pid, "VmHWM"), _memory_bytes(pid, "VmRSS")
        store_bytes = sum(each.stat().st_size for each in server.home.glob("selection.sqlite3*"))
        print(f"{name}: {dict(outcomes)} in {took_s:.1f} s, of which the worker computed {cpu_s:.1f} s")
        print(f"  others: {_shown(others.waits())}")
        print(
            f"  the worker had {before_bytes / 1e6:.0f} MB before, {peak_bytes / 1e6:.0f} MB at most and "
            f"{after_bytes / 1e6:.0f} MB after; the store takes {store_bytes / 1e6:.1f} MB",
            flush=True,
        )
        if peak_bytes - before_bytes > MAX_GROWTH_BYTES:
            found.append(f"{name}: the worker grew by {(peak_bytes - before_bytes) / 1e6:.0f} MB")
        if store_bytes > MAX_STORE_BYTES:
            found.append(f"{name}: the store takes {store_bytes / 1e6:.0f} MB")
        if set(outcomes) - {"observed", "overloaded", "503 overloaded"}:
            found.append(f"{name}: {dict(outcomes)}")
    if server.run("status")["workers"][0]["pid"] != pid:
        found.append("the worker has been replaced")
    return found


def _shown(waits: Waits) -> str:
    return f"{waits.count} queries, p50 {waits.p50:.1f} ms, p99 {waits.p99:.1f} ms, {waits.most:.1f} ms at most"


def _memory_bytes(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="flood", description="Send the most feedback that is taken at once.")
    parser.add_argument("--of", nargs="*", choices=FLOODS, default=[*FLOODS], help="which, one after the other")
    names = parser.parse_args().of
    with clipper("--max-contexts", str(MAX_CONTEXTS)) as server:
        with contextlib.chdir(HERE / "models"), Clipper.connect(home=server.home) as client:
            client.deploy("echo", "soaked:echo", input_type="float64[*]")
            client.deploy("second", "soaked:echo", input_type="float64[*]")
            client.create_application("others", model="echo", slo_ms=5000)
            client.create_application("taught", model=["echo", "second"], policy=POLICY, slo_ms=5000)
        found = uvloop.run(flood(server, names))
    print("\n".join(found) or "It held.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
