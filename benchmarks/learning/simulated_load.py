"""``python -m benchmarks.learning.simulated_load``: policies over models that can be full, in virtual time.

Queries come by chance and wait for nobody. Schedulers, chances, policies and what they learn are Clipper's own; only
processes and clocks are not. What is counted is what users get: the share of queries with a right answer in time,
beside what is possible if each model's capacity and quality were known.
"""

import argparse
import functools
import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import default_half_life, make_policy
from clipper.learning.policies.candidates import RESCUED, candidates
from clipper.learning.policies.policy import Choice, JudgedQuery, Outlook, Policy, QueryView
from clipper.learning.policies.prices import Prices
from clipper.values.outputs.output import Output
from clipper.worker.abstraction.batching.device import Device
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.in_time import InTime
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import Work
from clipper.worker.selection.availability import filled, resources
from clipper.worker.selection.feedback.outcomes import Outcomes
from clipper.worker.selection.feedback.promises import Tries
from clipper.worker.selection.feedback.scoring import lesson
from clipper.worker.telemetry.trace_context import SpanContext

RIGHT, WRONG = b"1", b"0"
# A stand-in is asked beside a late model when so much time is left for each second that it needs.
LAST_CALL_TIMES = 1.2


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose batches take ``fixed_s + per_row_s * rows``, times what is given by the time.

    Attributes:
        replicas: the names of its replicas, with the times from and until which each is dead.
        device: the accelerator that it shares with all models of that name, which computes one batch after another in
            the order of their arrival; none if it has its own.
    """

    name: str
    per_row_s: float
    quality: float
    fixed_s: float = 0.0
    noise: float = 0.05
    slowness: Callable[[float], float] = lambda at_s: 1.0
    replicas: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=lambda: {"r": ()})
    device: str = ""

    @property
    def per_s(self) -> float:
        return 1.0 / self.per_row_s


# The models of the table in docs/selection.md.
GOOD, QUICK = Model("a", 0.010, 0.98), Model("b", 0.0002, 0.80)


@dataclass(slots=True, eq=False)
class Query:
    """A query in the simulation; it is the waiter of its works.

    Attributes:
        quality: how likely each model is to be right about it; and ``right``, whether it is.
    """

    arrival_s: float
    deadline_s: float
    quality: Mapping[str, float]
    right: Mapping[str, bool]
    done: bool = False
    may_wait: bool = False
    span: SpanContext | None = None
    choice: Choice = field(default_factory=lambda: Choice((), ()))
    chance: float = 1.0
    outputs: dict[str, bytes] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    is_try: bool = False
    features: bytes | None = None

    def on_output(self, model: str, output: Output) -> None:
        raise NotImplementedError

    def on_failure(self, model: str, code: str, message: str) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class Counted:
    """Queries of a part of the run: how many, how many got a right answer, and how many got the default.

    An answer of one model counts as right by the model's quality. So the share says which models answered, and nothing
    of the luck of their answers.
    """

    queries: int = 0
    right: float = 0.0
    defaults: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.queries + other.queries, self.right + other.right, self.defaults + other.defaults)

    @property
    def share(self) -> float:
        return self.right / max(self.queries, 1)

    @property
    def default_share(self) -> float:
        return self.defaults / max(self.queries, 1)


class Application:
    """An application over models with one replica each.

    Args:
        weighs_time: whether selection sees who can be in time, as Clipper's own policies do; or goes by losses alone,
            among which a missed deadline is one, as it did before.
    """

    def __init__(
        self,
        policy: str,
        models: Sequence[Model],
        *,
        slo_s: float = 0.1,
        label_share: float = 1.0,
        seed: int = 1,
        weighs_time: bool = True,
    ) -> None:
        self.policy: Policy = make_policy(policy)
        self.models = {model.name: model for model in models}
        self.names = tuple(self.models)
        self.slo_s, self.label_share, self.weighs_time = slo_s, label_share, weighs_time
        self.random, self.noise = random.Random(seed), random.Random(seed + 1)
        self.ledger = Ledger(default_half_life(policy))
        self.outcomes = Outcomes()
        self.arms = Arms({})
        self.tries = Tries()
        self.prices, self.tells_apart = Prices(), self.policy.goes_by == "query"
        flow = Flow()
        self.schedulers = {name: Scheduler(16_384, 1 << 28, 0.0, flow) for name in self.names}
        for scheduler in self.schedulers.values():
            scheduler.set_slo(slo_s)
        self.in_time = {name: InTime(scheduler) for name, scheduler in self.schedulers.items()}
        self.devices = {model.device: Device(model.device) for model in models if model.device}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._wake_s: dict[str, float] = {}
        # When each replica, or the accelerator that it shares, has computed all that it was sent.
        self._free_s: dict[str, float] = {}
        # Works with their query and its part of the run. They are kept, so that no other object gets their ids.
        self._works: list[Work] = []
        self._asked: dict[int, tuple[Query, Counted]] = {}
        for model in models:
            for replica, deaths in model.replicas.items():
                self._revive(model.name, replica, 0.0)
                for from_s, until_s in deaths:
                    self._at(from_s, functools.partial(self._kill, model.name, replica))
                    self._at(until_s, functools.partial(self._revive, model.name, replica))

    def _revive(self, name: str, replica: str, now_s: float) -> None:
        device = self.devices.get(self.models[name].device)
        self.schedulers[name].add_replica(replica, 4096, devices=() if device is None else (device,))

    def _kill(self, name: str, replica: str, now_s: float) -> None:
        """A replica dies. What it was computing goes to the others, if there are any, and else fails at once."""
        scheduler = self.schedulers[name]
        lost = scheduler.lose_replica(replica)
        if scheduler.replicas:
            scheduler.suspects.push_back(lost)
            return
        waiting = scheduler.queue.take(scheduler.queue.length, scheduler.queue.lanes()).batch
        self._lose(name, [*lost, *waiting], now_s)

    def run(self, rate: Callable[[float], float], end_s: float, parts: int = 3) -> list[Counted]:
        """Return what users got in each part of the run."""
        counted = [Counted() for _ in range(parts)]
        most = max(rate(end_s * step / 1000) for step in range(1000))

        def arrive(now_s: float) -> None:
            if self.random.random() < rate(now_s) / most:
                query = self._come(now_s)
                part = counted[min(int(parts * now_s / end_s), parts - 1)]
                part.queries += 1
                self._at(query.deadline_s, lambda at_s: self._end(query, part))
                self._ask(query, now_s, part)
            following_s = now_s + self.random.expovariate(most)
            if following_s < end_s:
                self._at(following_s, arrive)

        self._at(0.0, arrive)
        while self._events:
            now_s, _, act = heapq.heappop(self._events)
            act(now_s)
            for name in self.names:
                self._decide(name, now_s)
        return counted

    def _come(self, now_s: float) -> Query:
        quality, features = self._kind()
        right = {name: self.noise.random() < share for name, share in quality.items()}
        return Query(now_s, now_s + self.slo_s, quality, right, features=features)

    def _kind(self) -> tuple[Mapping[str, float], bytes | None]:
        """Return the models' qualities for the next query, and its features."""
        return {name: model.quality for name, model in self.models.items()}, None

    def _at(self, at_s: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), act))

    def _chances(self, names: Sequence[str], now_s: float, due_s: float) -> dict[str, float]:
        trusts = self.policy.feedback == "selected"
        self.raw = {name: self.in_time[name].outlook(now_s, due_s)[0] for name in names}
        return {name: self.outcomes.believed(name, self.raw[name]) if trusts else self.raw[name] for name in names}

    def _select(self, names: tuple[str, ...], query: Query, now_s: float, rescued: float = RESCUED) -> Choice:
        totals = self.ledger.totals()
        if not self.weighs_time:
            return self.policy.select(names, totals, QueryView(), self.random)
        chances = self._chances(names, now_s, query.deadline_s)
        view = QueryView(packed_features=query.features, in_time=None if min(chances.values()) >= 1.0 else chances)
        self.prices.filled = filled(self.in_time.values(), now_s, query.deadline_s)
        if self.prices.filled and view.in_time is not None and self.policy.has_budget:
            self.prices.foresee(chances, resources(self.in_time, self.slo_s, with_models=False))
        prices = self.prices if self.prices.is_active else None
        if view.in_time is not None or prices is not None:
            among, names = names, candidates(self.policy, names, totals, view, 1.0, rescued, prices)
            self._try_others(among, names, now_s)
        choice = self.policy.select(names, totals, view, self.random)
        if not query.choice.models:
            query.chance = self.raw[choice.models[0]] if len(choice.models) == 1 else 1.0
            if self.policy.has_budget and (view.in_time is not None or prices is not None):
                found = resources(self.in_time, self.slo_s, with_models=self.tells_apart)
                self.prices.ration(choice.models[0], chances, found, now_s)
        return choice

    def _try_others(self, among: Sequence[str], candidates: Sequence[str], now_s: float) -> None:
        """Send a query without an asker to a model that idles and is passed over, now and then."""
        for name in among:
            if name in candidates:
                self.tries.forget(name)
            elif self.in_time[name].may_try(now_s) and self.tries.is_due(name):
                self._push(Query(now_s, now_s + self.slo_s, {}, {}, is_try=True), name, now_s, Counted())

    def _ask(self, query: Query, now_s: float, part: Counted) -> None:
        query.choice = self._select(self.names, query, now_s)
        for name in query.choice.models:
            self._push(query, name, now_s, part)
        has_stand_ins = self.weighs_time and len(query.choice.models) == 1 and len(self.names) > 1
        if has_stand_ins and query.chance < 1.0:
            others = [self.in_time[name].alone_s() for name in self.names if name not in query.choice.models]
            needed_s = max(LAST_CALL_TIMES * min(others), 0.1 * self.slo_s)

            def call(at_s: float) -> None:
                self._go_on(query, at_s, part)

            if needed_s < self.slo_s:
                self._at(query.deadline_s - needed_s, call)

    def _push(self, query: Query, name: str, now_s: float, part: Counted) -> None:
        work = Work(b"", [query], now_s, self.slo_s, query.deadline_s, query.deadline_s, b"")
        self._asked[id(work)] = query, part
        self._works.append(work)
        self.schedulers[name].push(work, now_s)

    def _decide(self, name: str, now_s: float) -> None:
        scheduler, model = self.schedulers[name], self.models[name]
        decision = scheduler.decide(now_s)
        for replica, batch in decision.batches:
            took_s = model.fixed_s + model.per_row_s * len(batch.works)
            took_s *= model.slowness(now_s) * self.noise.lognormvariate(0.0, model.noise)
            device = model.device or f"{name}/{replica.id}"
            self._free_s[device] = max(self._free_s.get(device, 0.0), now_s) + took_s
            self._at(self._free_s[device], self._come_back(name, replica, batch.id))
        if decision.wake_s is not None:
            self._wake(name, max(decision.wake_s, now_s))
        self._lose(name, decision.late + decision.shed, now_s)

    def _wake(self, name: str, at_s: float) -> None:
        """Have a model decide then, unless it will earlier."""
        if at_s < self._wake_s.get(name, inf):
            self._wake_s[name] = at_s
            self._at(at_s, lambda now_s: self._woken(name, now_s))

    def _woken(self, name: str, now_s: float) -> None:
        if self._wake_s.get(name, inf) <= now_s:
            del self._wake_s[name]

    def _lose(self, name: str, works: Sequence[Work], now_s: float) -> None:
        for work in works:
            if id(work) not in self._asked:  # a copy, which nobody waits for
                continue
            query, part = self._asked[id(work)]
            query.lost.add(name)
            if not query.is_try and not query.done and len(query.lost) == len(query.choice.models):
                self._go_on(query, now_s, part)

    def _come_back(self, name: str, replica: ReplicaState, batch_id: int) -> Callable[[float], None]:
        def come_back(now_s: float) -> None:
            scheduler = self.schedulers[name]
            if scheduler.replicas.get(replica.id) is not replica:  # it died meanwhile
                return
            finished = scheduler.finished(replica, batch_id, now_s)
            assert finished is not None
            for work in finished[0].works:
                if id(work) not in self._asked:
                    continue
                query, part = self._asked[id(work)]
                if query.is_try:
                    query.done = True
                    if now_s <= query.deadline_s:
                        self.outcomes.regained(name)
                if query.done or now_s > query.deadline_s:
                    continue
                query.outputs[name] = RIGHT if query.right[name] else WRONG
                first = query.choice.models[0]
                is_complete = len(query.outputs) + len(query.lost) >= len(query.choice.models)
                if not is_complete and (self._is_joint or name != first):
                    continue
                if self._goes_on and self._go_on(query, now_s, part):
                    continue
                self._end(query, part)

        return come_back

    @property
    def _is_joint(self) -> bool:
        return self.policy.feedback == "all"

    @property
    def _goes_on(self) -> bool:
        return type(self.policy).next is not Policy.next

    def _go_on(self, query: Query, now_s: float, part: Counted) -> bool:
        """Ask a further model, if there is one: by the policy, or in place of one that is late."""
        left = tuple(name for name in self.names if name not in query.choice.models)
        if query.done or not left or self._is_joint or not (self.weighs_time or self._goes_on):
            return False
        if self._goes_on:
            chances = self._chances(left, now_s, query.deadline_s)
            outlook = Outlook(query.deadline_s - now_s, dict.fromkeys(left, 0.0), chances if self.weighs_time else None)
            totals = self.ledger.totals()
            further = self.policy.next(query.choice, query.outputs, totals, QueryView(), outlook, self.random)
            if further is None or len(further.models) == len(query.choice.models):
                query.choice = further or query.choice
                return False
            query.choice = further
        else:
            if max(self._chances(left, now_s, query.deadline_s).values()) <= 0.01:
                return False
            further = self._select(left, query, now_s, rescued=0.0)
            query.choice = Choice((*query.choice.models, further.models[0]), (*query.choice.shares, 1.0))
        self._push(query, query.choice.models[-1], now_s, part)
        return True

    def _end(self, query: Query, part: Counted) -> None:
        """Answer, and learn from the label if there is one."""
        if query.done:
            return
        query.done = True
        totals, choice = self.ledger.totals(), query.choice
        part.defaults += not query.outputs
        if query.outputs and (self._is_joint or self._goes_on):
            part.right += self.policy.combine(choice, query.outputs, totals, QueryView()).output == RIGHT
        elif query.outputs:
            part.right += query.quality[next(name for name in choice.models if name in query.outputs)]
        for place, name in enumerate(choice.models):
            chance = None if place or self._is_joint else query.chance
            if name in query.outputs:
                self.outcomes.came(name, chance)
            elif not place or self._is_joint or self._goes_on:
                self.outcomes.missed(name, choice, self.arms, None, chance)
        if self.random.random() >= self.label_share:
            return
        losses = {name: float(output != RIGHT) for name, output in query.outputs.items()}
        missed = {name: 1.0 for name in choice.models if name not in query.outputs}
        if self._is_joint:
            losses |= {name: float(not query.right[name]) for name in self.names}
        elif not self.weighs_time:
            losses |= dict.fromkeys(missed, 1.0)
        judged = JudgedQuery(packed_features=query.features, outputs=query.outputs, label=RIGHT)
        self.ledger.add(self.ledger.entries(lesson(self.policy, choice, losses, totals, judged, missed)))
        self.ledger.drop_stale()


def possible(models: Sequence[Model], per_s: float) -> float:
    """Return the largest share of right answers, if one model answers each query: a linear program over capacities,
    which fills the best model first."""
    left, right = 1.0, 0.0
    for model in sorted(models, key=lambda model: -model.quality):
        share = min(left, model.per_s / per_s)
        left, right = left - share, right + share * model.quality
    return right


def _steady(per_s: float) -> Callable[[float], float]:
    return lambda at_s: per_s


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", nargs="*", default=["single", "adaptive", "thompson", "exp3", "exp4", "cascade"])
    parser.add_argument("--rates", nargs="*", type=float, default=[25, 50, 90, 200, 400])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--labels", type=float, default=1.0)
    parser.add_argument("--by-losses-alone", action="store_true", help="as before: selection does not see who is full")
    options = parser.parse_args()
    for per_s in options.rates:
        best = possible((GOOD, QUICK), per_s)
        print(f"{per_s:g}/s, possible {best:.3f}")
        for policy in options.policies:
            weighs_time = not options.by_losses_alone
            application = Application(policy, (GOOD, QUICK), label_share=options.labels, weighs_time=weighs_time)
            parts = application.run(_steady(per_s), options.seconds)
            late = sum(parts[1:], Counted())
            print(f"  {policy:10} {late.share:.3f}  {late.share / best:6.1%} of it, defaults {late.default_share:.2%}")


if __name__ == "__main__":
    main()
