"""Replicas under closed-loop load, in virtual time, behind the scheduler itself.

Batches take ``fixed + per_row × size``, with noise. Each client sends its next query when it has its answer, through
the worker's front, which reads one after another. Times are seconds of virtual time; nothing waits.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipper.settings.version import Batching, BatchingPolicy
from clipper.worker.abstraction.batching.controller import make_controller
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import NOBODY
from tests.works import make_work

SLO_S = 0.020
MAX_BATCH = 1024
# A worker's time to read one query and write its answer, and a query's way there and back.
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

    def times(self, factor: float) -> "Model":
        return Model(factor * self.fixed_s, factor * self.per_row_s, self.noise, self.outlier_share, self.outlier_times)


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch that came back: when, from which replica, how long it took, and each query's latency."""

    ended_s: float
    replica: int
    service_s: float
    latencies_s: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.latencies_s)


@dataclass(slots=True)
class Run:
    """The course of a run: each batch that was answered, and (when, how many) queries that were not sent."""

    batches: list[Answered] = field(default_factory=list)
    dropped: list[tuple[float, int]] = field(default_factory=list)

    def between(self, from_s: float, until_s: float = math.inf) -> "Run":
        return Run(
            [batch for batch in self.batches if from_s <= batch.ended_s < until_s],
            [(at_s, count) for at_s, count in self.dropped if from_s <= at_s < until_s],
        )

    def queries(self, replica: int | None = None) -> int:
        return sum(batch.size for batch in self.batches if replica is None or batch.replica == replica)

    def in_time(self) -> int:
        return sum(latency_s <= SLO_S for batch in self.batches for latency_s in batch.latencies_s)

    def late(self) -> int:
        """Queries that were dropped or answered after their deadline."""
        return sum(count for _, count in self.dropped) + self.queries() - self.in_time()

    def mean_size(self, replica: int | None = None) -> float:
        sizes = [batch.size for batch in self.batches if replica is None or batch.replica == replica]
        return float(np.mean(sizes)) if sizes else 0.0

    def p99_s(self) -> float:
        """The 99th percentile of the latency of all that were answered."""
        return float(np.quantile([latency_s for batch in self.batches for latency_s in batch.latencies_s], 0.99))


class Simulation:
    """``clients`` ask a version with one replica of each of ``models``; these are given by time, as they may change."""

    def __init__(
        self,
        models_at: Callable[[float], Sequence[Model]],
        clients: int,
        policy: BatchingPolicy,
        max_batch: int = MAX_BATCH,
        seed: int = 1,
        front_s: float = FRONT_S,
    ) -> None:
        self.run = Run()
        self.scheduler = Scheduler(100_000, 1 << 30, 0.0, Flow())
        self._models_at, self._front_s = models_at, front_s
        self._rng = random.Random(seed)
        count = len(models_at(0.0))
        for number in range(count):
            controller = make_controller(Batching(policy, max_batch=max_batch), SLO_S)
            self.scheduler.add_replica(str(number), max_batch, controller, is_fixed=policy == "fixed")
        self.scheduler.set_slo(SLO_S)
        self._free_at_s = [0.0] * count
        self._front_free_s = 0.0
        # When, in which order, and what: queries that come, or (a replica's number, a batch's id) that comes back.
        self._events: list[tuple[float, int, int | tuple[int, int]]] = []
        self._order = itertools.count()
        self._ask(clients, 0.0)

    def until(self, until_s: float) -> Run:
        while True:
            assert self._events, "queries wait, and nothing will ever happen"
            if self._events[0][0] >= until_s:
                break
            now_s, _, event = heapq.heappop(self._events)
            if isinstance(event, tuple):
                self._finish(*event, now_s)
            else:
                for _ in range(event):
                    assert self.scheduler.push(make_work(b"", now_s, SLO_S), now_s) == (True, [])
            self._decide(now_s)
        return self.run

    def _ask(self, count: int, now_s: float) -> None:
        """The clients' next queries, through the worker's front."""
        at_s = max(self._front_free_s, now_s + ROUND_TRIP_S)
        while count:
            turn = min(count, self._rng.randint(1, TURN))
            at_s += turn * self._front_s
            self._add(at_s, turn)
            count -= turn
        self._front_free_s = at_s

    def _decide(self, now_s: float) -> None:
        decision = self.scheduler.decide(now_s)
        for replica, batch in decision.batches:
            number = int(replica.id)
            began_s = max(self._free_at_s[number], now_s)
            service_s = self._models_at(began_s)[number].service_s(len(batch.works), self._rng)
            self._free_at_s[number] = began_s + service_s
            self._add(self._free_at_s[number], (number, batch.id))
        dropped = len(decision.late) + len(decision.shed)
        if dropped:
            # Their clients get the default, and ask again.
            self.run.dropped.append((now_s, dropped))
            self._ask(dropped, now_s)
        if decision.wake_s is not None:
            self._add(decision.wake_s, 0)

    def _finish(self, number: int, batch_id: int, now_s: float) -> None:
        finished = self.scheduler.finished(self.scheduler.replicas[str(number)], batch_id, now_s)
        assert finished is not None
        batch, service_s = finished
        latencies_s = tuple(now_s - work.arrival_s for work in batch.works if work.waiters is not NOBODY)
        self.run.batches.append(Answered(now_s, number, service_s, latencies_s))
        self._ask(len(latencies_s), now_s)

    def _add(self, at_s: float, event: int | tuple[int, int]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), event))
