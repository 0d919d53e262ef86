"""A replica under closed-loop load, in virtual time: what a controller's limits come to.

One replica whose batches take ``fixed + per_row × size``, with noise; the worker keeps up to two batches with it, and
gathers, as the dispatcher does. Queries are counted, not made, which lets a test see millions of them. Each client
sends its next query when it has its answer. Times are seconds of virtual time; nothing waits.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from clipper.abstraction.batching.controller import Controller
from clipper.abstraction.batching.dispatcher import MAX_IN_FLIGHT, PREFETCH_S
from clipper.abstraction.batching.gathering import Gathered, gather_s

# What a worker takes to read one query and write its answer, and a query's way there and back.
FRONT_S = 15e-6
ROUND_TRIP_S = 200e-6
# Arrivals that the worker reads in one turn of its loop.
TURN = 32


@dataclass(frozen=True, slots=True)
class Model:
    """A replica's speed: batches vary by ``noise``, but ``outlier_share`` of them take ``outlier_times`` as long."""

    fixed_s: float
    per_row_s: float
    noise: float = 0.05
    outlier_share: float = 0.004
    outlier_times: float = 5.0

    def service_s(self, size: int, rng: random.Random) -> float:
        times = self.outlier_times if rng.random() < self.outlier_share else rng.lognormvariate(0.0, self.noise)
        return (self.fixed_s + self.per_row_s * size) * times


@dataclass(frozen=True, slots=True)
class Batch:
    ended_s: float
    size: int
    service_s: float
    limit: int


@dataclass(slots=True)
class Run:
    """What happened: each batch, and each query's latency with when it ended, in order of the end."""

    batches: list[Batch] = field(default_factory=list)
    latencies: list[tuple[float, float, int]] = field(default_factory=list)  # ended_s, latency_s, queries

    def throughput(self, from_s: float, until_s: float = math.inf) -> float:
        """Queries answered a second."""
        ended = [batch for batch in self.batches if from_s <= batch.ended_s < until_s]
        return sum(batch.size for batch in ended) / (min(until_s, self.batches[-1].ended_s) - from_s)

    def p99_s(self, from_s: float, until_s: float = math.inf) -> float:
        """The 99th percentile of the queries' latency."""
        return _p99([(latency_s, n) for ended_s, latency_s, n in self.latencies if from_s <= ended_s < until_s])

    def service_p99_s(self, from_s: float, until_s: float = math.inf) -> float:
        """The 99th percentile of the batches' service time."""
        return _p99([(batch.service_s, 1) for batch in self.batches if from_s <= batch.ended_s < until_s])


def _p99(weighted: list[tuple[float, int]]) -> float:
    values, weights = (np.array(column) for column in zip(*sorted(weighted)))
    return float(values[np.searchsorted(np.cumsum(weights), 0.99 * weights.sum())])


class Simulation:
    """Run ``clients`` against one replica until ``until_s``. ``model_at`` gives the replica's speed by time."""

    def __init__(self, controller: Controller, model_at: Callable[[float], Model], clients: int, seed: int = 1) -> None:
        self.controller = controller
        self.run = Run()
        self._model_at = model_at
        self._rng = random.Random(seed)
        self._arrivals: list[tuple[float, int]] = []  # a heap of (when, how many)
        self._queue: deque[tuple[float, int]] = deque()
        self._queued = 0
        self._front_free_s = self._replica_free_s = 0.0
        self._flying: deque[tuple[float, float, list[tuple[float, int]], bool]] = deque()
        self._wake_s = math.inf
        self._done_s, self._answered, self._left = 0.0, 0, 0
        self._send_queries(0.0, clients)

    def until(self, until_s: float) -> Run:
        now_s = 0.0
        while now_s < until_s:
            now_s = self._next_event()
            self._dispatch(now_s)
        return self.run

    def _next_event(self) -> float:
        arrival_s = self._arrivals[0][0] if self._arrivals else math.inf
        if self._flying and self._flying[0][0] <= min(arrival_s, self._wake_s):
            return self._finish()
        if self._wake_s < arrival_s:
            return self._wake_s
        now_s, count = heapq.heappop(self._arrivals)
        self._queue.append((now_s, count))
        self._queued += count
        return now_s

    def _send_queries(self, now_s: float, count: int) -> None:
        """The clients' next queries, through the worker's front, which handles one after another."""
        at_s = max(self._front_free_s, now_s + ROUND_TRIP_S)
        while count:
            turn = min(count, self._rng.randint(1, TURN))
            at_s += turn * FRONT_S
            heapq.heappush(self._arrivals, (at_s, turn))
            count -= turn
        self._front_free_s = at_s

    def _dispatch(self, now_s: float) -> None:
        self._wake_s = math.inf
        while self._queued and len(self._flying) < MAX_IN_FLIGHT:
            limit = self.controller.limit
            if self._flying and self._queued < limit and self._flying[-1][1] >= PREFETCH_S:
                return
            if not self._flying and self._queued < limit and (until_s := self._gather_until_s(now_s)) > now_s:
                self._wake_s = until_s
                return
            queries = self._take(limit)
            size = sum(count for _, count in queries)
            service_s = self._model_at(now_s).service_s(size, self._rng)
            self._replica_free_s = max(self._replica_free_s, now_s) + service_s
            self._flying.append((self._replica_free_s, service_s, queries, size == limit))

    def _gather_until_s(self, now_s: float) -> float:
        began_s = self._done_s
        if self._queued > self._left:
            began_s = max(began_s, self._queue[0][0])
        return began_s + gather_s(self.controller, Gathered(self._left, self._answered, self._queued, now_s - began_s))

    def _take(self, limit: int) -> list[tuple[float, int]]:
        taken = []
        while self._queue and limit:
            arrived_s, count = self._queue.popleft()
            if count > limit:
                self._queue.appendleft((arrived_s, count - limit))
                count = limit
            taken.append((arrived_s, count))
            limit -= count
            self._queued -= count
        return taken

    def _finish(self) -> float:
        ended_s, service_s, queries, was_full = self._flying.popleft()
        size = sum(count for _, count in queries)
        self._done_s, self._answered, self._left = ended_s, size, self._queued
        self.run.batches.append(Batch(ended_s, size, service_s, self.controller.limit))
        self.run.latencies += [(ended_s, ended_s - arrived_s, count) for arrived_s, count in queries]
        self.controller.observe(size, service_s, was_full)
        self._send_queries(ended_s, size)
        return ended_s
