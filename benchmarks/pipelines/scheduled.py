"""Clipper's own pipelines in virtual time: the schedulers of steps, and the split of deadlines. They know nothing."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heappush
from math import pi, sqrt

from clipper.cli.capacity.simulation import Query, Simulated, Step
from clipper.values.outputs.output import Output
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import Work
from clipper.worker.selection.pipeline.times import StepTimes
from clipper.worker.selection.pipeline.window import Window

# Times of batches vary by a few hundredths, as those of models do.
NOISE = 0.03


def usual(steps: Sequence[Step]) -> list[Step]:
    """Return the steps with the mean times of their batches here, as the times of a server's would be measured."""
    ratio = 1 + NOISE * sqrt(2 / pi)
    return [replace(step, fixed_s=ratio * step.fixed_s, row_s=ratio * step.row_s) for step in steps]


class _Row:
    """Waits for the output of a row."""

    def __init__(self, query: Query, deadline_s: float) -> None:
        self.query, self.deadline_s = query, deadline_s
        self.may_wait, self.span = False, None

    @property
    def done(self) -> bool:
        return self.query.is_over

    def on_output(self, model: str, output: Output) -> None: ...

    def on_failure(self, model: str, code: str, message: str) -> None: ...


class _Served:
    def __init__(self, slo_s: float, replicas: int) -> None:
        self.scheduler = Scheduler(16_384, 1 << 30, 0.0, Flow())
        self.scheduler.set_slo(slo_s)
        for replica in range(replicas):
            self.scheduler.add_replica(str(replica), 4096)
        self.free_s = [0.0] * replicas


class ScheduledPipeline(Simulated[tuple[ReplicaState, Batch]]):
    """One run of a load. Call ``run`` once.

    Attributes:
        stalls: by place, from when to when no batch of a step begins.
    """

    def __init__(self, steps: Sequence[Step], slo_s: float, chance: random.Random) -> None:
        super().__init__(steps, slo_s, chance)
        self._times, self._window = StepTimes(self.followers), Window()
        self._certain = [step.asked[1] - step.asked[0] >= 1.0 for step in steps]
        self._served = [_Served(slo_s, step.replicas) for step in steps]
        self._probes: dict[Query, bool] = {}
        self.stalls: dict[int, tuple[float, float]] = {}

    def queue(self, query: Query, place: int, rows: int, now_s: float) -> None:
        deadline_s = query.arrival_s + self.slo_s
        if query not in self._probes:
            if not self._window.begin(now_s, self.slo_s):
                query.is_over = True
                return
            self._probes[query] = self._times.begin()
        due_s = self._times.deadline_s(place, now_s, deadline_s, self._probes[query])
        if due_s is None:
            self._fail(query, place, now_s)
            return
        for _ in range(rows):
            work = Work(b"", [_Row(query, due_s)], now_s, self.slo_s, due_s, due_s, b"")
            self._served[place].scheduler.push(work, now_s)
        self._decide(place, now_s)

    def _fail(self, query: Query, place: int, now_s: float) -> None:
        """End a query for which a step has no time."""
        if query.is_over:
            return
        query.is_over = True
        answered = [each for each, rows in enumerate(query.made) if rows and not query.rows[each] and each != place]
        is_in_vain = bool(answered) and self._certain[place] and not self._probes[query]
        is_later = any(self.steps[each].needs for each in answered)
        self._window.ended(query.arrival_s, now_s, is_answered=False, is_in_vain=is_in_vain, is_later=is_later)

    def settle(self, query: Query, place: int, now_s: float) -> None:
        super().settle(query, place, now_s)
        # A step that is not asked settles within the call for the one before it.
        if query.end_s is not None and self._probes.pop(query, None) is not None:
            self._window.ended(query.arrival_s, now_s, is_answered=True, is_in_vain=False, is_later=False)

    def _decide(self, place: int, now_s: float) -> None:
        served, step = self._served[place], self.steps[place]
        decision = served.scheduler.decide(now_s)
        for state, batch in decision.batches:
            for query in _queries(batch.works):
                query.made[place] += 1
            began_s = max(now_s, served.free_s[int(state.id)])
            from_s, until_s = self.stalls.get(place, (0.0, 0.0))
            if from_s <= began_s < until_s:
                began_s = until_s
            service_s = step.batch_s(len(batch.works)) * (1 + abs(self.chance.gauss(0, NOISE)))
            served.free_s[int(state.id)] = began_s + service_s
            self.busy_s[place] += service_s
            heappush(self.events, (began_s + service_s, next(self.numbers), place, (state, batch)))
        for query in _queries((*decision.late, *decision.shed)):
            self._ended(query, place, now_s, is_late=True)
            self._fail(query, place, now_s)
        if decision.wake_s is not None and decision.wake_s > now_s:
            heappush(self.events, (decision.wake_s, next(self.numbers), place, None))

    def _ended(self, query: Query, place: int, now_s: float, is_late: bool = False) -> None:
        query.rows[place] -= 1
        if not query.rows[place]:
            self._times.took(place, now_s, now_s - query.asked_s[place], is_late)

    def end(self, place: int, ended: tuple[ReplicaState, Batch] | None, now_s: float) -> None:
        if ended is not None:
            state, batch = ended
            self._served[place].scheduler.finished(state, batch.id, now_s)
            for work in batch.works:
                for query in _queries([work]):
                    if now_s > work.deadline_s:
                        self._fail(query, place, now_s)
                    if not query.is_over:
                        self._ended(query, place, now_s)
                        if not query.rows[place]:
                            self.settle(query, place, now_s)
        self._decide(place, now_s)


def _queries(works: Sequence[Work]) -> Iterator[Query]:
    for work in works:
        for row in work.waiters:
            assert isinstance(row, _Row)
            yield row.query
