"""The dispatcher under load in virtual time: replicas are used to the full, and what they do is of use."""

import heapq
from random import Random

import pytest

from clipper.abstraction.batching.controller import make_controller
from clipper.abstraction.batching.dispatcher import BATCH_SHARE_OF_SLO, Batch, Dispatcher, ReplicaState
from clipper.abstraction.work import Work
from clipper.snapshot import Batching
from works import make_work

FAST, SLOW = (0.0005, 20e-6), (0.0025, 100e-6)


@pytest.mark.parametrize("policy", ["aimd", "quantile"])
def test_unequal_replicas_are_each_used_to_the_full(policy: str) -> None:
    """One of two replicas is five times slower; together they do what each does alone."""
    apart = sum(Load(policy, [speed], clients=100).goodput() for speed in (FAST, SLOW))
    assert Load(policy, [FAST, SLOW], clients=200).goodput() >= 0.9 * apart


@pytest.mark.parametrize("policy", ["aimd", "quantile"])
@pytest.mark.parametrize("speeds", [[FAST], [SLOW], [FAST, SLOW]])
def test_more_load_than_the_replicas_can_take_still_leaves_them_useful(
    policy: str, speeds: list[tuple[float, float]]
) -> None:
    """At twice the rate, replicas answer in time nearly as many as they evaluate, not what is too late by then."""
    load = Load(policy, speeds, rate=2 * sum(1 / (per_row_s + fixed_s / 60) for fixed_s, per_row_s in speeds))
    assert load.goodput() >= 0.9 * load.throughput()


class Load:
    """An SLO of 20 ms in virtual time: clients that each ask again once answered, or queries at a rate.

    A replica of speed (fixed, per row) evaluates one batch after another, with noise.
    """

    SLO_S, UNTIL_S, TURN = 0.02, 2.0, 32

    def __init__(self, policy: str, speeds: list[tuple[float, float]], clients: int = 0, rate: float = 0.0) -> None:
        self.dispatcher = Dispatcher(10_000, 1 << 20, 0.0)
        for number in range(len(speeds)):
            controller = make_controller(Batching(policy), self.SLO_S * BATCH_SHARE_OF_SLO)  # type: ignore[arg-type]
            self.dispatcher.add_replica(str(number), controller)
        self.speeds = speeds
        self.free_s = [0.0] * len(speeds)
        self.random = Random(1)
        self.events: list[tuple[float, int, str]] = []
        self.evaluated = self.in_time = 0
        self._run(clients, rate)

    def throughput(self) -> float:
        return self.evaluated / (self.UNTIL_S / 2)

    def goodput(self) -> float:
        """Queries a second that were answered in time, once the limits had settled."""
        return self.in_time / (self.UNTIL_S / 2)

    def _run(self, clients: int, rate: float) -> None:
        now_s = 0.0
        self._ask(clients, now_s)
        if rate:
            heapq.heappush(self.events, (0.0, 0, ""))
        while now_s < self.UNTIL_S:
            turn = self.dispatcher.next_turn(now_s)
            for replica, batch in turn.assignments:
                self._evaluate(replica, batch, now_s)
            if clients:
                self._ask(len(turn.late), now_s)
            now_s, batch_id, replica_id = heapq.heappop(self.events)
            if not replica_id:
                self._ask(self.TURN, now_s)
                heapq.heappush(self.events, (now_s + self.TURN / rate, 0, ""))
                continue
            works = self._finish(replica_id, batch_id, now_s)
            if clients:
                self._ask(len(works), now_s)

    def _ask(self, count: int, now_s: float) -> None:
        for _ in range(count):
            self.dispatcher.push(make_work(b"", now_s, self.SLO_S), now_s)

    def _evaluate(self, replica: ReplicaState, batch: Batch, now_s: float) -> None:
        number = int(replica.id)
        fixed_s, per_row_s = self.speeds[number]
        service_s = (fixed_s + per_row_s * len(batch.works)) * self.random.lognormvariate(0.0, 0.02)
        self.free_s[number] = max(self.free_s[number], now_s) + service_s
        heapq.heappush(self.events, (self.free_s[number], batch.id, replica.id))

    def _finish(self, replica_id: str, batch_id: int, now_s: float) -> list[Work]:
        finished = self.dispatcher.finished(self.dispatcher.replicas[replica_id], batch_id, now_s)
        assert finished is not None
        works = finished[0].works
        if now_s > self.UNTIL_S / 2:
            self.evaluated += len(works)
            self.in_time += sum(work.deadline_s >= now_s for work in works)
        return works
