"""Loads servers in turn: the machine changes speed within minutes, and all of them have to meet the same."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec
import uvloop

from benchmarks.harness import wrk
from benchmarks.harness.workbench import HERE
from benchmarks.peers.processes import cpu_s
from benchmarks.peers.running import DEFAULT, Running
from clipper.base.http1 import Answer
from clipper.cli.load.arrivals import due_times_s
from clipper.cli.load.inputs import Ring
from clipper.cli.load.sender import Sender, Target

REQUESTS = HERE / "peers" / "requests.lua"
MAX_CONNECTIONS = 512


class Round(msgspec.Struct, frozen=True):
    """One server under closed load.

    Attributes:
        per_s: right answers a second.
        failed: requests that got none, or a default.
        cpu_us: user and system time of all of its processes, a request that was answered.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float


class Open(msgspec.Struct, frozen=True):
    """One server under a load that does not wait.

    Attributes:
        in_time: the share of all queries that were answered rightly within the objective, from when they were due.
        p50_ms: of all queries; None if that one was not answered, as ``p99_ms``.
        cpu_us: user and system time of all of its processes, a query that was answered within the objective.
    """

    rate_per_s: float
    in_time: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: float


def closed(server: Running, connections: int, seconds: int) -> Round:
    """Load a server from so many connections, each of which asks again once it is answered."""
    before = cpu_s(server.processes())
    load = wrk.run(server.url, REQUESTS, connections=connections, seconds=seconds, bodies=server.requests)
    after = cpu_s(server.processes())
    answered = load.requests - load.failed - load.defaults
    per_s = load.requests_per_s * answered / load.requests
    failed = load.failed + load.defaults + load.broken
    return Round(per_s, load.p50_ms, load.p99_ms, failed, taken_s_of(before, after) / max(1, answered) * 1e6)


def taken_s_of(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    return sum(seconds_s - before.get(pid, 0.0) for pid, seconds_s in after.items())


def alternate(servers: Sequence[Running], connections: int, rounds: int, seconds: int) -> list[list[Round]]:
    """Load the servers in turn; every other round begins with the last. Return each one's rounds."""
    measured: list[list[Round]] = [[] for _ in servers]
    for number in range(rounds):
        order = range(len(servers)) if number % 2 == 0 else reversed(range(len(servers)))
        for index in order:
            measured[index].append(closed(servers[index], connections, seconds))
    return measured


def middle(rounds: Sequence[Round]) -> Round:
    """The median of each number; failures are added up."""
    return Round(
        median(each.per_s for each in rounds),
        median(each.p50_ms for each in rounds),
        median(each.p99_ms for each in rounds),
        sum(each.failed for each in rounds),
        median(each.cpu_us for each in rounds),
    )


class _Tally:
    """What became of queries."""

    def __init__(self) -> None:
        self.offered = 0
        self.latencies_s: list[float] = []

    def due(self, number: int, due_s: float, seen_s: float) -> None:
        self.offered += 1

    def waited(self, number: int, due_s: float, sent_s: float) -> None: ...

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None:
        if answer.status == 200 and DEFAULT not in answer.body:
            self.latencies_s.append(answered_s - due_s)

    def failed(self, number: int, due_s: float, why: str) -> None: ...

    def not_sent(self, number: int, due_s: float) -> None: ...


def _requests(server: Running) -> Ring:
    """Return the requests of a file, over and over."""
    data, found, at = server.requests.read_bytes(), list[bytes](), 0
    while at < len(data):
        begin = data.index(b"\n", at) + 1
        at = begin + int(data[at:begin])
        found.append(data[begin:at])
    return Ring(found, "the rows of its task")


def open_loop(server: Running, rate_per_s: float, seconds: float, slo_ms: float) -> Open:
    """Load a server with queries that come at random at that rate, whether or not earlier ones are answered."""
    tally = _Tally()

    async def send() -> None:
        sender = Sender(
            Target("127.0.0.1", server.port),
            _requests(server),
            due_times_s("poisson", rate_per_s, seconds, random.Random(7)),
            tally,
            max_connections=MAX_CONNECTIONS,
            answer_within_s=5.0,
        )
        await sender.connect()
        await sender.run(time.monotonic())

    before = cpu_s(server.processes())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send())
    taken_s = taken_s_of(before, cpu_s(server.processes()))
    return summary(tally.latencies_s, tally.offered, rate_per_s, slo_ms, taken_s)


def summary(latencies_s: Sequence[float], offered: int, rate_per_s: float, slo_ms: float, taken_s: float) -> Open:
    """Return the outcome of so many queries, of which only those with a latency were answered.

    Args:
        taken_s: the server's processor time.
    """
    in_order = sorted(latencies_s)

    def quantile_ms(share: float) -> float | None:
        # A query without an answer counts as longer than any that has one.
        place = int(offered * share)
        return in_order[place] * 1e3 if place < len(in_order) else None

    in_time = sum(each <= slo_ms / 1e3 for each in in_order)
    cpu_us = taken_s / max(1, in_time) * 1e6
    return Open(rate_per_s, in_time / max(1, offered), quantile_ms(0.5), quantile_ms(0.99), cpu_us)
