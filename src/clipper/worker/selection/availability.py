"""Finds out which models of an application can answer a query in time, for the policy's selection.

Mostly all of them surely can. A look at the queues finds that out for many queries: it holds until as many queries have
come as the fullest model has room for, or a moment has passed. So a query costs two comparisons. The queues are asked
for each query only while a model is not sure.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf

from clipper.learning.policies.policy import QueryView
from clipper.learning.policies.prices import Prices, Resource
from clipper.values.outputs.output import Output
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.in_time import InTime
from clipper.worker.selection.feedback.outcomes import Outcomes
from clipper.worker.selection.feedback.promises import Tries
from clipper.worker.selection.terms import NO_CHANCE, Terms
from clipper.worker.telemetry.trace_context import SpanContext

# The shares of the SLO for which a look holds: the first if all models are sure, so that a model that begins to hang is
# noticed by then; the second if some have no chance at all.
SURE_SHARE, NO_CHANCE_SHARE = 0.1, 0.01
# The share of the fullest model's room that may be queued until the next look.
ROOM_SHARE = 0.5


class Availability:
    """The chances of the models under a set of terms.

    Attributes:
        chances: the chances by model, from the last look; None if all are sure.
        raw: the queues' chances, before they were corrected by the outcomes of earlier queries.
        holds_until_s, holds_below: the last look holds until then, on the loop's clock, and while fewer queries than
            this have been queued in the worker.
    """

    def __init__(self, terms: Terms, outcomes: Outcomes, flow: Flow) -> None:
        """Begin without a look. ``flow``: the worker's flow, which counts the queries that are queued."""
        self._outcomes = outcomes
        # A joint answer already waits only for models that are mostly in time, and keeps asking the others.
        self._selector = terms.selector
        self._corrects = terms.selector.policy.feedback == "selected"
        self._models = [
            (name, queue, terms.arms.key(name)) for name in terms.models if (queue := terms.targets[name]) is not None
        ]
        self._in_time = {name: queue.in_time for name, queue, _ in self._models}
        self._none: dict[str, float] = {name: 0.0 for name in terms.models if terms.targets[name] is None}
        self._slo_s = terms.slo_s
        self.flow = flow
        self.chances: dict[str, float] | None = None
        self.raw: dict[str, float] = {}
        self.holds_until_s, self.holds_below = -inf, 0
        self._tries = Tries()

    def look(self, now_s: float, due_s: float) -> None:
        """Find out how likely each model is to answer a query that is put in now by ``due_s``."""
        chances, is_between, least = dict(self._none), False, inf
        for name, queue, key in self._models:
            raw, further = queue.in_time.outlook(now_s, due_s)
            self.raw[name] = raw
            chances[name] = chance = self._outcomes.believed(key, raw) if self._corrects else raw
            if chance > 1.0 - NO_CHANCE and further >= 1.0:
                least = min(least, further)
            elif chance > NO_CHANCE:
                is_between = True
        is_sure = len(self._none) == 0 and min(chances.values(), default=1.0) > 1.0 - NO_CHANCE
        self.chances = None if is_sure else chances
        if is_between:
            self.holds_until_s = -inf
            return
        self.holds_until_s = now_s + self._slo_s * (SURE_SHARE if is_sure else NO_CHANCE_SHARE)
        self.holds_below = self.flow.arrivals + max(1, int(min(ROOM_SHARE * least, 1e9)))

    def of(self, names: Sequence[str], now_s: float, due_s: float) -> dict[str, float]:
        """Return the chances of some models to answer by ``due_s``, which may be nearer than the SLO."""
        chances = dict.fromkeys(names, 0.0)
        for name, queue, key in self._models:
            if name in chances:
                raw = queue.in_time.outlook(now_s, due_s)[0]
                chances[name] = self._outcomes.believed(key, raw) if self._corrects else raw
        return chances

    def ration(self, prices: Prices, asked: str, context: str | None, now_s: float) -> None:
        """Let the prices learn what a query in this context has asked, if they may decide what is asked.

        Models have a price only if it is known how much a query gains by them beside others, and shared devices always.
        """
        selector, found = self._selector, {}
        if selector.may_ration:
            with_models = selector.tells_apart(context) or (bool(prices.scarcity) and selector.goes_by != "nothing")
            found = resources(self._in_time, self._slo_s, with_models=with_models)
        if found or prices.scarcity:
            prices.ration(asked, self.chances or {}, found, now_s)
        if prices.scarcity:
            self.holds_below = 0  # the next query looks again

    def show(self, prices: Prices, now_s: float, due_s: float) -> None:
        """Let the prices see how full the devices are that several of the models share, before a query selects."""
        prices.filled = filled(self._in_time.values(), now_s, due_s)
        if prices.filled and self.chances and self._selector.may_ration:
            prices.foresee(self.chances, resources(self._in_time, self._slo_s, with_models=False))

    def with_known(self, row: bytes) -> dict[str, float]:
        """Return the chances for this input: 1 for a model whose output the cache has."""
        chances = dict(self.chances or {})
        for name, queue, _ in self._models:
            if chances.get(name, 1.0) < 1.0 and queue.peek(row) is not None:
                chances[name] = 1.0
        return chances

    def needs_s(self, besides: str) -> float:
        """Return the time within which the quickest of the other models surely answers; infinite without another."""
        return min((each.alone_s() for name, each in self._in_time.items() if name != besides), default=inf)

    def raw_chance(self, query: QueryView, model: str) -> float:
        """Return the chance that a model's queue gave, by which its promises are judged; 1 if its output is cached."""
        return 1.0 if query.chance(model) >= 1.0 else self.raw.get(model, 1.0)

    def want(self, names: Collection[str]) -> None:
        """Count a query as demand for these models, which it does not ask."""
        for name, queue, _ in self._models:
            if name in names:
                queue.want()

    def try_other(
        self, candidates: Sequence[str], row: bytes, now_s: Callable[[], float], budget_s: float, source: str
    ) -> None:
        """Ask a model that idles and is passed over, if it is time to see whether it has become quick again."""
        for name, queue, key in self._models:
            if name in candidates:
                self._tries.forget(name)
            elif queue.in_time.may_try(now_s()) and self._tries.is_due(name):
                attempt = Try(self._outcomes, key, now_s() + budget_s, now_s)
                queue.predict(row, attempt, now_s(), self._slo_s, source)
                return


def resources(models: Mapping[str, InTime], slo_s: float, *, with_models: bool) -> dict[str, Resource]:
    """Return what may be scarce: devices that some of the models share, and ``with_models`` places in others' queues.

    A unit of a device is the time of the longest row; a unit of a queue is a row. Models whose speed is not known yet
    are left out, and of those on devices also those that are too slow for any query.
    """
    per_s = {name: in_time.rows_per_s for name, in_time in models.items() if in_time.rows_per_s > 0.0}
    sharing: dict[str, list[str]] = {}
    for name in per_s:
        for device in models[name].devices if models[name].alone_s() < slo_s else ():
            if device.is_shared:
                sharing.setdefault(device.id, []).append(name)
    found = {}
    for device_id, names in sharing.items():
        if len(names) > 1:
            slowest_per_s = min(per_s[name] for name in names)
            found[device_id] = Resource(slowest_per_s, {name: slowest_per_s / per_s[name] for name in names})
    if with_models:
        on_devices = {name for resource in found.values() for name in resource.uses}
        found |= {name: Resource(per_s[name], {name: 1.0}) for name in per_s if name not in on_devices}
    return found


def filled(models: Iterable[InTime], now_s: float, due_s: float) -> dict[str, float]:
    devices = {device for in_time in models for device in in_time.devices if device.is_shared}
    return {device.id: device.filled(now_s, due_s) for device in devices}


class Try:
    """Takes the output of a model that is only tried, for which no answer waits."""

    __slots__ = ("_key", "_now_s", "_outcomes", "deadline_s", "done", "may_wait", "span")

    def __init__(self, outcomes: Outcomes, key: str, deadline_s: float, now_s: Callable[[], float]) -> None:
        self._outcomes, self._key, self._now_s = outcomes, key, now_s
        self.deadline_s = deadline_s
        self.done = self.may_wait = False
        self.span: SpanContext | None = None

    def on_output(self, model: str, output: Output) -> None:
        self.done = True
        if self._now_s() <= self.deadline_s:
            self._outcomes.regained(self._key)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self.done = True
