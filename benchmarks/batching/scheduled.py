"""Clipper's own scheduler as a rule of the simulation, with one of its policies; knows nothing beforehand."""

import itertools
import math
import random
from collections import deque
from collections.abc import Sequence

from benchmarks.batching.profiles import Profile, Query
from clipper.settings.version import Batching, BatchingPolicy
from clipper.values.outputs.output import Output
from clipper.worker.abstraction.batching.controller import Controller, make_controller
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.quantile import SAMPLES
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import Work

MAX_BATCH = 4096
# Batches that a controller has seen before the run, all of them full: the paper's regression rests on so many.
TAUGHT = SAMPLES


class Client:
    """Waits for an answer."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.done = self.may_wait = False
        self.deadline_s = query.due_s
        self.span = None

    def on_output(self, model: str, output: Output) -> None: ...

    def on_failure(self, model: str, code: str, message: str) -> None: ...


class Scheduled:
    """The scheduler, which knows nothing beforehand; under a controller it has seen ``TAUGHT`` batches.

    Attributes:
        scheduler: the one that decides.
        far: so many of the replicas, the last ones, are on other nodes.
        sent: queries that each replica was sent.
        longest_silence_s: the longest time for which a replica had been sent nothing when a query was given up.
    """

    def __init__(self, profile: Profile, policy: BatchingPolicy = "goodput", far: int = 0) -> None:
        self.scheduler = Scheduler(16_384, 1 << 30, 0.0, Flow())
        self.scheduler.set_slo(profile.slo_s * min(profile.slos))
        for replica in range(len(profile.speeds)):
            controller = make_controller(Batching(policy, MAX_BATCH), profile.slo_s)
            if controller is not None:
                _teach(controller, profile, replica)
            is_far = replica >= len(profile.speeds) - far
            self.scheduler.add_replica(str(replica), MAX_BATCH, controller, is_far=is_far)
        self.far = far
        self.sent = [0] * len(profile.speeds)
        self.longest_silence_s = 0.0
        self._sent = [deque[int]() for _ in profile.speeds]
        self._asked_s = [0.0] * len(profile.speeds)

    def push(self, query: Query) -> None:
        row, due_s = bytes(query.size_bytes), query.due_s
        work = Work(row, [Client(query)], query.arrival_s, query.slo_s, due_s, due_s, row)
        self.scheduler.push(work, query.arrival_s)

    def decide(self, now_s: float, idle: Sequence[int]) -> tuple[list[tuple[int, list[Query]]], float]:
        decision = self.scheduler.decide(now_s)
        batches = []
        for state, batch in decision.batches:
            replica = int(state.id)
            self._sent[replica].append(batch.id)
            self._asked_s[replica] = now_s
            self.sent[replica] += len(batch.works)
            clients = [waiter for work in batch.works for waiter in work.waiters]
            batches.append((replica, [client.query for client in clients if isinstance(client, Client)]))
        if any(work.due_s >= now_s for work in (*decision.late, *decision.shed)):
            silent_s = [now_s - self._asked_s[replica] for replica in idle]
            self.longest_silence_s = max(self.longest_silence_s, *silent_s, 0.0)
        return batches, math.inf if decision.wake_s is None else decision.wake_s

    def finished(self, replica: int, now_s: float) -> None:
        state = self.scheduler.replicas[str(replica)]
        self.scheduler.finished(state, self._sent[replica].popleft(), now_s)


def _teach(controller: Controller, profile: Profile, replica: int) -> None:
    rng, now_s = random.Random(replica), 0.0
    coming = profile.queries(profile.cap_per_s(), math.inf, rng)
    # Where rows are alike there is no need to draw more of them.
    queries = coming if profile.per_byte_s else itertools.repeat(next(coming))
    for _ in range(TAUGHT):
        size = controller.limit
        service_s = profile.service_s(replica, list(itertools.islice(queries, size)), now_s, math.inf, rng)
        controller.record(size, service_s, True)
        now_s += service_s
