"""Simulates queries on their way through steps with queues and replicas, in virtual time.

It is the estimator of InferLine (Crankshaw et al., SoCC 2020, section 4.2): each step has one queue, and replicas that
evaluate batches, whose time is a line in their size. An application without steps has one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Generic, TypeVar

# A step never evaluates more rows at once.
MAX_BATCH = 4096
# A query waits for one batch and is in the next, so a batch may take this share of the step's part of the SLO.
BATCH_SHARE = 0.5
# The first queries are not counted: queues begin empty.
WARM_UP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it was measured.

    Attributes:
        needs: the places of the steps whose outputs it needs, which come before it.
        fixed_s, row_s: a batch of n rows takes ``fixed_s + n * row_s``.
        replicas: how many evaluate batches at the same time.
        asked: the queries that ask it: those whose number, which is random and below 1, lies in this range.
        rows: the rows that a query makes, each as likely as the others.
        largest: the largest batch that the model takes.
    """

    name: str
    needs: tuple[int, ...]
    fixed_s: float
    row_s: float
    replicas: int = 1
    asked: tuple[float, float] = (0.0, 1.0)
    rows: tuple[int, ...] = (1,)
    largest: int = MAX_BATCH

    def batch_s(self, rows: int) -> float:
        return self.fixed_s + rows * self.row_s

    @property
    def rows_per_query(self) -> float:
        """The mean number of rows for a query of the whole."""
        return (self.asked[1] - self.asked[0]) * sum(self.rows) / len(self.rows)

    def batch_within(self, limit_s: float) -> int:
        """Return the largest batch that takes no longer; 1 if none does."""
        left_s = limit_s - self.fixed_s
        if self.largest * self.row_s <= left_s or self.row_s <= 0.0:
            return self.largest
        return max(1, int(left_s / self.row_s + 1e-9)) if left_s > 0.0 else 1

    def capacity_per_s(self, budget_s: float) -> float:
        """Return the rows that a replica answers in a second if a query has ``budget_s`` for its wait and its batch."""
        rows = self.batch_within(BATCH_SHARE * budget_s)
        return rows / max(self.batch_s(rows), 1e-9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcomes of the queries that are counted.

    Attributes:
        in_time: the share that was answered within the SLO.
        p99_s: of the answers; 0 if there is none.
        busy: by step, the share of its replicas' time in which they evaluated batches.
        wait_s: by step, the mean wait of a row that was evaluated.
        in_vain: by step, the share of its rows whose query was not answered.
    """

    in_time: float
    p99_s: float
    busy: tuple[float, ...]
    wait_s: tuple[float, ...]
    in_vain: tuple[float, ...]


def follow_s(steps: Sequence[Step], take_s: Sequence[float]) -> list[float]:
    """Return by step the time of the longest path after it, of steps that take so long."""
    after = [0.0] * len(steps)
    for place in reversed(range(len(steps))):
        for before in steps[place].needs:
            after[before] = max(after[before], take_s[place] + after[place])
    return after


def arrivals(per_s: float, seconds: float, variation: float, chance: Random) -> Iterator[float]:
    """Make the times of queries, in order. Their gaps have a gamma distribution. ``variation``: the squared coefficient
    of variation of the gaps: 1 makes them independent, more makes bursts.
    """
    shape, now_s = 1.0 / variation, 0.0
    while True:
        now_s += chance.gammavariate(shape, 1.0 / (shape * per_s))
        if now_s >= seconds:
            return
        yield now_s


class Query:
    """A query under way. Lists are by step; ``rows`` counts those that are missing, ``made`` those evaluated."""

    __slots__ = ("arrival_s", "asked_s", "end_s", "is_over", "lot", "made", "needs", "open", "rows")

    def __init__(self, arrival_s: float, lot: float, needs: Sequence[int]) -> None:
        self.arrival_s, self.lot, self.needs, self.open = arrival_s, lot, list(needs), len(needs)
        self.rows, self.made, self.asked_s = [0] * len(needs), [0] * len(needs), [0.0] * len(needs)
        self.end_s: float | None = None
        self.is_over = False


Ended = TypeVar("Ended")


class Simulated(Generic[Ended]):
    """One run of a load, with queues of any kind, whose batches end as ``Ended``. Call ``run`` once.

    Attributes:
        busy_s, evaluated, waits_s: by step, how long its replicas computed, its rows, and how long these waited.
        events: when, a number that keeps the order, the step, and the batch that ends then; None to look at its queue.
    """

    def __init__(self, steps: Sequence[Step], slo_s: float, chance: Random) -> None:
        self.steps, self.slo_s, self.chance = steps, slo_s, chance
        self.followers: list[list[int]] = [[] for _ in steps]
        for place, step in enumerate(steps):
            for before in step.needs:
                self.followers[before].append(place)
        self.busy_s, self.waits_s, self.evaluated = [0.0] * len(steps), [0.0] * len(steps), [0] * len(steps)
        self.given_up = 0
        self.events: list[tuple[float, int, int, Ended | None]] = []
        self.numbers = count()

    def queue(self, query: Query, place: int, rows: int, now_s: float) -> None:
        """Queue the rows of a query for a step, and begin batches."""
        raise NotImplementedError

    def end(self, place: int, ended: Ended | None, now_s: float) -> None:
        """Take the outputs of a batch, if one ends, and begin others."""
        raise NotImplementedError

    def run(self, times_s: Sequence[float], enough: float = 0.0) -> Outcome:
        """Let queries come at these times, in order, at least one; return what came of them.

        Once more are given up than ``enough`` of all allows, the run ends: then nothing was in time.
        """
        most_given_up = (1.0 - enough) * len(times_s)
        from_s, end_s = times_s[0] + WARM_UP_SHARE * (times_s[-1] - times_s[0]), times_s[-1]
        queries: list[Query] = []
        needs = [len(step.needs) for step in self.steps]
        events, place = self.events, 0
        while events or place < len(times_s):
            if self.given_up > most_given_up:
                return Outcome(0.0, 0.0, (), (), ())
            if place < len(times_s) and (not events or times_s[place] <= events[0][0]):
                now_s = times_s[place]
                place += 1
                query = Query(now_s, self.chance.random(), needs)
                queries.append(query)
                for first, needed in enumerate(needs):
                    if not needed:
                        self._ask(query, first, now_s)
            else:
                now_s, _, step, ended = heappop(events)
                if ended is not None:
                    end_s = now_s
                self.end(step, ended, now_s)
        counted = [query for query in queries if query.arrival_s >= from_s]
        took_s = sorted(query.end_s - query.arrival_s for query in counted if query.end_s is not None)
        in_time = sum(each <= self.slo_s for each in took_s)
        made = [sum(query.made[step] for query in counted) for step in range(len(needs))]
        lost = [sum(query.made[step] for query in counted if query.end_s is None) for step in range(len(needs))]
        ran_s = max(end_s - times_s[0], 1e-9)
        return Outcome(
            in_time / len(counted),
            took_s[int(0.99 * len(took_s))] if took_s else 0.0,
            tuple(busy_s / (ran_s * step.replicas) for step, busy_s in zip(self.steps, self.busy_s, strict=True)),
            tuple(waits_s / max(rows, 1) for waits_s, rows in zip(self.waits_s, self.evaluated, strict=True)),
            tuple(each / max(every, 1) for each, every in zip(lost, made, strict=True)),
        )

    def _ask(self, query: Query, place: int, now_s: float) -> None:
        if query.is_over:
            return
        step = self.steps[place]
        rows = step.rows[0] if len(step.rows) == 1 else self.chance.choice(step.rows)
        if not rows or not step.asked[0] <= query.lot < step.asked[1]:
            self.settle(query, place, now_s)
            return
        query.rows[place], query.asked_s[place] = rows, now_s
        self.queue(query, place, rows, now_s)

    def settle(self, query: Query, place: int, now_s: float) -> None:
        """Note that a query needs nothing more of a step, and ask those that follow."""
        query.open -= 1
        if not query.open:
            query.end_s, query.is_over = now_s, True
        for follower in self.followers[place]:
            query.needs[follower] -= 1
            if not query.needs[follower]:
                self._ask(query, follower, now_s)


class _Queue:
    """The rows that wait for a step, each as its due time, a number that keeps their order, its query, and its time."""

    __slots__ = ("busy", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, Query, float]] = []
        self.busy = 0


class Simulation(Simulated[list[Query]]):
    """A run with queues that know the times of batches beforehand."""

    def __init__(
        self, steps: Sequence[Step], slo_s: float, chance: Random, split_s: Sequence[float] | None = None
    ) -> None:
        """``split_s``: the fixed part of the SLO of each step; by default, what is left less what later steps take."""
        super().__init__(steps, slo_s, chance)
        self._split_s = split_s
        self._after_s = follow_s(steps, [step.batch_s(1) for step in steps])
        parts_s = even_split(steps, slo_s) if split_s is None else split_s
        # By step, the size of batches while more rows wait than that.
        self._aims = [step.batch_within(BATCH_SHARE * part_s) for step, part_s in zip(steps, parts_s, strict=True)]
        self._queues = [_Queue() for _ in steps]

    def queue(self, query: Query, place: int, rows: int, now_s: float) -> None:
        due_s = query.arrival_s + self.slo_s - self._after_s[place]
        if self._split_s is not None:
            due_s = min(due_s, now_s + self._split_s[place])
        for _ in range(rows):
            heappush(self._queues[place].waiting, (due_s, next(self.numbers), query, now_s))
        self._serve(place, now_s)

    def end(self, place: int, ended: Sequence[Query] | None, now_s: float) -> None:
        self._queues[place].busy -= 1
        for query in ended or ():
            query.rows[place] -= 1
            if not query.rows[place] and not query.is_over:
                self.settle(query, place, now_s)
        self._serve(place, now_s)

    def _serve(self, place: int, now_s: float) -> None:
        queue, step = self._queues[place], self.steps[place]
        while queue.busy < step.replicas and (batch := self._take(place, now_s)):
            service_s = step.batch_s(len(batch))
            queue.busy += 1
            self.busy_s[place] += service_s
            heappush(self.events, (now_s + service_s, next(self.numbers), place, batch))

    def _take(self, place: int, now_s: float) -> list[Query]:
        """Give up queries that would be late, and take the largest batch that is in time for the most urgent query.

        While more wait than a batch has room for, those are given up that a whole batch cannot be in time for: a
        sliding window, as of Nexus (Shen et al., SOSP 2019, section 6.3).
        """
        step, aim = self.steps[place], self._aims[place]
        waiting, batch = self._queues[place].waiting, list[Query]()
        room = 0
        while waiting and (not room or len(batch) < room):
            due_s, _, query, came_s = waiting[0]
            if not batch and not query.is_over:
                if now_s + step.batch_s(aim if len(waiting) >= aim else 1) > due_s + 1e-9:
                    query.is_over = True
                    self.given_up += 1
                else:
                    room = step.batch_within(due_s - now_s)
            heappop(waiting)
            if not query.is_over:
                batch.append(query)
                query.made[place] += 1
                self.waits_s[place] += now_s - came_s
        self.evaluated[place] += len(batch)
        return batch


def even_split(steps: Sequence[Step], slo_s: float) -> list[float]:
    """Split an SLO in proportion to what steps take for a row, along the longest path through each."""
    one_s = [step.batch_s(1) for step in steps]
    after_s, until_s = follow_s(steps, one_s), list[float]()
    for step, own_s in zip(steps, one_s, strict=True):
        until_s.append(own_s + max((until_s[before] for before in step.needs), default=0.0))
    return [
        slo_s * own_s / max(path_s + later_s, 1e-9)
        for own_s, path_s, later_s in zip(one_s, until_s, after_s, strict=True)
    ]
