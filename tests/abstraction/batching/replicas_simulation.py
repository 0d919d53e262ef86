"""Several replicas under closed-loop load, in virtual time, behind the dispatcher itself: who gets what.

Each client sends its next query when it has its answer. Times are seconds of virtual time; nothing waits.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Sequence

from simulation import ROUND_TRIP_S, Model

from clipper.abstraction.batching.controller import make_controller
from clipper.abstraction.batching.dispatcher import BATCH_SHARE_OF_SLO, Dispatcher, ReplicaState
from clipper.snapshot import Batching, BatchingPolicy
from works import make_work

SLO_S = 0.020


class ReplicasSimulation:
    """``clients`` ask a version with one replica of each of ``models``.

    Attributes:
        answered: queries, by the replica's place among the models.
        sizes: of the batches that each replica has answered since ``settled_s``.
        late: queries that were not sent, since their deadline would have come first.
    """

    def __init__(
        self, models: Sequence[Model], clients: int, policy: BatchingPolicy, settled_s: float, seed: int = 1
    ) -> None:
        self.answered: Counter[int] = Counter()
        self.sizes: dict[int, list[int]] = {number: [] for number in range(len(models))}
        self.late = 0
        self._models = models
        self._settled_s = settled_s
        self._rng = random.Random(seed)
        self._dispatcher = Dispatcher(max_length=100_000, max_bytes=1 << 30, delay_s=0.0)
        for number in range(len(models)):
            controller = make_controller(Batching(policy), SLO_S * BATCH_SHARE_OF_SLO)
            self._dispatcher.add_replica(str(number), controller)
        self._free_at_s = [0.0] * len(models)
        # When, in which order, and what: queries that come, or (a replica's number, a batch's id) that comes back.
        self._events: list[tuple[float, int, int | tuple[int, int]]] = [(0.0, 0, clients)]
        self._order = itertools.count(1)

    def until(self, until_s: float) -> "ReplicasSimulation":
        while self._events[0][0] < until_s:
            now_s, _, event = heapq.heappop(self._events)
            if isinstance(event, tuple):
                self._finish(*event, now_s)
            else:
                self._ask(event, now_s)
            self._take_turn(now_s)
        return self

    def _ask(self, count: int, now_s: float) -> None:
        for _ in range(count):
            assert self._dispatcher.push(make_work(b"", now_s, SLO_S), now_s) == (True, [])

    def _take_turn(self, now_s: float) -> None:
        turn = self._dispatcher.next_turn(now_s)
        for replica, batch in turn.assignments:
            self._begin(replica, batch.id, len(batch.works), now_s)
        if turn.late:
            self._note_late(len(turn.late), now_s)
        if turn.wake_s is not None:
            self._add(turn.wake_s, 0)

    def _begin(self, replica: ReplicaState, batch_id: int, size: int, now_s: float) -> None:
        number = int(replica.id)
        began_s = max(self._free_at_s[number], now_s)
        self._free_at_s[number] = began_s + self._models[number].service_s(size, self._rng)
        self._add(self._free_at_s[number], (number, batch_id))

    def _finish(self, number: int, batch_id: int, now_s: float) -> None:
        finished = self._dispatcher.finished(self._dispatcher.replicas[str(number)], batch_id, now_s)
        assert finished is not None
        size = len(finished[0].works)
        if now_s >= self._settled_s:
            self.answered[number] += size
            self.sizes[number].append(size)
        self._add(now_s + ROUND_TRIP_S, size)

    def _note_late(self, count: int, now_s: float) -> None:
        """Their clients get the default, and ask again."""
        self.late += count if now_s >= self._settled_s else 0
        self._add(now_s + ROUND_TRIP_S, count)

    def _add(self, at_s: float, event: int | tuple[int, int]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), event))
