"""Adds up the workers' counts, field by field, so that totals never fall, whatever becomes of the workers.

Counts, histograms and present values are summed. Some values cannot be summed, and have rules of their own.
"""

import re
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import sub
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from clipper.control.statistics import (
    MAX_FORMER_MODELS,
    NO_MARK,
    ApplicationStatistics,
    ModelSelectionStatistics,
    ReplicaStatistics,
    SelectionStatistics,
    VersionStatistics,
)
from clipper.learning.mathematics.guardrail import ENOUGH_FEEDBACK

S = TypeVar("S", bound=Struct)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _smallest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _furthest(values: Sequence[Any]) -> Any:
    """Return the most advanced state of a test. An ended test stays ended: the other workers learn of it soon."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda test: (test.winner is not None, test.observations), default=None)


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _by_key(choose: Callable[[Iterable[float]], float]) -> Callable[[Sequence[Mapping[str, float]]], dict[str, float]]:
    def choose_each(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
        keys = {key: None for value in values for key in value}
        return {key: choose(value[key] for value in values if key in value) for key in keys}

    return choose_each


# The rules for these fields, by name. All workers learn the same calibration and the same cost, or measure about the
# same. For a replica's answers a second, the highest value is right: other workers saw it busy with batches that were
# not theirs.
_RULES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "cost": _mean,
    "calibration_error": _mean,
    "batch_limit": _smallest,
    "slo_s": _smallest,
    "batch_limits": _by_key(min),
    "rows_per_s": _by_key(max),
    "test": _furthest,
    "mark": _first,
    "last_answered_at": max,
    "trials": _first,
}
# Present values, with their substitutes once a worker has ended or does not report.
_PRESENT: Mapping[str, Any] = {
    **dict.fromkeys(_RULES),
    "batch_limits": {},
    "rows_per_s": {},
    "mark": 0,
    "last_answered_at": 0.0,
    "trials": (),
    "explanations": {},
    "last_error": "",
    "queue_length": 0,
    "queue_bytes": 0,
    "contexts": 0,
    "in_flight": 0,
    "states": {},
}


def total(parts: Sequence[S]) -> S:
    """Return the sum of one or more structs of the same type. A text is that of the first struct with one."""
    if len(parts) == 1:
        return parts[0]
    kind = type(parts[0])
    columns = zip(*map(astuple, parts))
    return kind(*(_RULES.get(name, _sum)(column) for name, column in zip(kind.__struct_fields__, columns)))


def _sum(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    first = known[0]
    if isinstance(first, int | float):
        return sum(known)
    if isinstance(first, tuple):
        return tuple(map(sum, zip(*known)))
    if isinstance(first, dict):
        keys = {key: None for value in known for key in value}
        return {key: _sum([value[key] for value in known if key in value]) for key in keys}
    return total(known) if isinstance(first, Struct) else next(filter(None, known), first)


def increase(before: S | None, now: S) -> S:
    """Return the counts since ``before``: all of ``now`` if a count fell, because the counter was made anew. Present
    values are those of ``now``.
    """
    return now if before is None or has_fallen(before, now) else _minus(now, before)


def _minus(now: S, before: S) -> S:
    kind = type(now)
    return kind(*map(_less, kind.__struct_fields__, astuple(now), astuple(before)))


def _less(name: str, now: Any, before: Any) -> Any:
    if name in _PRESENT or before is None:
        return now
    if isinstance(now, int | float):
        return now - before
    if isinstance(now, tuple):
        return tuple(map(sub, now, before))
    if isinstance(now, dict):
        return {key: _less("", each, before.get(key)) for key, each in now.items()}
    return _minus(now, before) if isinstance(now, Struct) else now


def counted(one: S) -> S:
    """Return the counts that remain once their worker has ended: all but present values."""
    return _mapped(one, lambda number: number)


def negative(one: S) -> S:
    """Return the value that removes ``counted(one)`` when it is added."""
    return _mapped(one, lambda number: -number)


def _mapped(one: S, change: Callable[[float], float]) -> S:
    def value(name: str, before: Any) -> Any:
        if name in _PRESENT:
            return _PRESENT[name]
        if isinstance(before, int | float):
            return change(before)
        if isinstance(before, tuple):
            return tuple(map(change, before))
        if isinstance(before, dict):
            return {key: value("", each) for key, each in before.items()}
        return _mapped(before, change) if isinstance(before, Struct) else before

    kind = type(one)
    return kind(*map(value, kind.__struct_fields__, astuple(one)))


def has_fallen(before: Struct, now: Struct) -> bool:
    """Whether a count is lower than before, or is gone, because the counter was made anew.

    Counts are integers: a sum of a user's own losses may fall. A former model's counts go while others stay.
    """
    return any(map(_fell, type(now).__struct_fields__, astuple(before), astuple(now)))


def _fell(name: str, before: Any, now: Any) -> bool:
    if name in _PRESENT or before == now:
        return False
    if isinstance(before, int):
        return now < before  # type: ignore[no-any-return]
    if isinstance(before, tuple):
        return any(map(int.__gt__, before, now))
    if isinstance(before, dict):
        return any(_fell("", each, now[key]) if key in now else name != "models" for key, each in before.items())
    if isinstance(before, Struct):
        return now is None or has_fallen(before, now)
    return False


def added(sums: SelectionStatistics | None, counts: SelectionStatistics | None) -> SelectionStatistics | None:
    """Return the sum of both, without the oldest of too many models that ``counts`` no longer has."""
    if sums is None or counts is None:
        return counts or sums
    both = total([sums, counts])
    former = [model for model in both.models if model not in counts.models]
    gone = set(former[: max(len(former) - MAX_FORMER_MODELS, 0)])
    return replace(both, models={model: each for model, each in both.models.items() if model not in gone})


# The answers are compared with the best single model; or, if the policy learns by context, with the best model of
# each context.
Against = Literal["model", "context"]


def regret(counted: SelectionStatistics | None) -> tuple[Against, float] | None:
    """Return the comparison, and how much more the answers have lost; None without feedback."""
    most = 0 if counted is None else max((each.scored for each in counted.models.values()), default=0)
    if counted is None or not counted.answers_scored or not most:
        return None
    # A model with little feedback is left out: a newcomer's first few answers may all be right.
    least = min(ENOUGH_FEEDBACK, most / 4)
    means = [_mean_loss(each) for each in counted.models.values() if each.scored >= least]
    # For queries without a context, a policy that learns by context has no advantage over others.
    without_context = counted.answers_scored - counted.context_answers
    reference = counted.context_loss + without_context * min(means)
    return "context" if counted.context_answers else "model", counted.answer_loss - reference


def _mean_loss(model: ModelSelectionStatistics) -> float:
    """Return a model's mean loss over all queries with feedback.

    If what came with a query picked the model, its loss is divided by the probability of that. Workers of an earlier
    version do not weigh.
    """
    return model.weighted_loss / model.weight if model.weight > 0 else model.loss / model.scored


# ``digits:2#1.g7``: replica 1 of digits:2, its seventh process.
_PROCESS_ID = re.compile(r"(?P<replica>.+#\d+)\.g(?P<generation>\d+)")

# A reading's mark, and the reading.
_Told = tuple[int, bytes]

_encode = msgspec.msgpack.Encoder().encode

K = TypeVar("K", bound=Hashable)


class Link(Struct, frozen=True, array_like=True):
    """The workers' connections to a replica, by state. ``batch_limit`` is the smallest; None if no worker tells."""

    batches: int
    in_flight: int
    batch_limit: int | None
    states: dict[str, int]


class Totals(Generic[K, S]):
    """Sums over workers for a kind of thing, such as applications, each by its key.

    A worker's last reading of a thing stands until it tells another. The counts of a worker that has ended are carried
    on. The counts of a worker that another supervisor started begin with its first reading here: so all begin at 0
    together, like those of a restarted process.

    ``changed``: the things whose sum may have changed since they were last taken out of it.
    """

    def __init__(self, kind: type[S], has_counted: Callable[[S], bool]) -> None:
        """Begin at 0. ``has_counted`` tells whether any count is not 0: otherwise nothing need be carried on."""
        self.changed: set[K] = set()
        self._has_counted = has_counted
        # By the worker's instance, in order, the marks and texts of its last readings, as bytes: for 64 workers with a
        # thousand models each these take a third of what the structs would. Equal readings are one object.
        self._last: dict[int, dict[K, _Told]] = {}
        self._newest: dict[K, _Told] = {}
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._carried: dict[K, S] = {}
        self._identities: Mapping[K, object] = {}
        self._away: set[int] = set()

    def marks(self, instance: int, keys: Iterable[K]) -> tuple[int, ...]:
        last = self._last.get(instance, {})
        return tuple([known[0] if (known := last.get(key)) else NO_MARK for key in keys])

    def take(self, instance: int, is_adopted: bool, things: Mapping[K, S]) -> None:
        """Take what a worker tells. ``is_adopted``: another supervisor started the worker."""
        if instance not in self._last:
            self._last[instance] = {}
            self._last = dict(sorted(self._last.items()))
        last = self._last[instance]
        for key, now in things.items():
            if key not in self._identities:
                continue
            known, told = last.get(key), (getattr(now, "mark", NO_MARK), _encode(now))
            if known is None:
                if is_adopted and self._has_counted(now):
                    self._carry(key, negative(now))
            elif known[1] == told[1]:
                continue
            elif has_fallen(before := self._decode(known[1]), now):
                self._carry(key, counted(before))
            self._note(last, key, told)

    def lose(self, instance: int, keys: Iterable[K]) -> None:
        """Note that a worker no longer has these things: it may have them again, and then goes on counting."""
        last = self._last.get(instance, {})
        for key in keys:
            if (known := last.get(key)) is not None:
                rest = NO_MARK, _encode(counted(self._decode(known[1])))
                if rest != known:
                    self._note(last, key, rest)

    def keep_workers(self, instances: Container[int], up: Container[int]) -> None:
        """Carry on the counts of workers that have ended. Of those that are not ``up`` only the counts stay."""
        for instance in [one for one in self._last if one not in instances]:
            for key, (_, said) in self._last.pop(instance).items():
                self.changed.add(key)
                if self._has_counted(last := self._decode(said)):
                    self._carry(key, counted(last))
        away = {instance for instance in self._last if instance not in up}
        for instance in away - self._away:
            self.lose(instance, list(self._last[instance]))
        self._away = away

    def keep_things(self, identities: Mapping[K, object]) -> None:
        """Forget all other things. ``identities`` tell a thing from an earlier thing with the same key."""
        if identities == self._identities:
            return
        gone = [key for key, one in self._identities.items() if key not in identities or identities[key] != one]
        for key in gone:
            self._carried.pop(key, None)
            self._newest.pop(key, None)
            for last in self._last.values():
                last.pop(key, None)
        self.changed = self.changed.difference(gone).union(key for key in gone if key in identities)
        self._identities = identities

    def total(self, key: K) -> S | None:
        """Return the sum over all workers; None if none has told of the thing."""
        said = [known[1] for last in self._last.values() if (known := last.get(key)) is not None]
        decoded = {one: self._decode(one) for one in dict.fromkeys(said)}
        parts = [decoded[one] for one in said]
        if key in self._carried:
            parts.append(self._carried[key])
        return total(parts) if parts else None

    def of_worker(self, instance: int, key: K) -> S | None:
        known = self._last.get(instance, {}).get(key)
        return None if known is None else self._decode(known[1])

    def _note(self, last: dict[K, _Told], key: K, told: _Told) -> None:
        if self._newest.get(key) != told:
            self._newest[key] = told
        last[key] = self._newest[key]
        self.changed.add(key)

    def _carry(self, key: K, counts: S) -> None:
        known = self._carried.get(key)
        both = counts if known is None else total([known, counts])
        if isinstance(known, ApplicationStatistics) and isinstance(counts, ApplicationStatistics):
            both = replace(both, selection=added(known.selection, counts.selection))
        self._carried[key] = both


def application_has_counted(one: ApplicationStatistics) -> bool:
    of = one.selection
    has_learned = of is not None and bool(
        of.models or of.feedback or of.answers_scored or of.policy_errors or of.stages or any(of.confidence.counts)
    )
    return has_learned or bool(one.queries or one.defaults or one.errors or one.slo_misses or any(one.latency_s.counts))


def version_has_counted(one: VersionStatistics) -> bool:
    results = one.outputs or one.model_errors or one.rejected or one.expired
    looked_up = one.cache_hits or one.cache_misses or one.cache_joins
    batches = any(one.queue_wait_s.counts) or any(one.batch_size.counts) or any(one.batch_latency_s.counts)
    return bool(results or looked_up or batches)


def links(replicas: Iterable[ReplicaStatistics]) -> dict[str, Link]:
    """Return a worker's connections by replica name: a draining predecessor must not share its successor's series."""
    newest: dict[str, tuple[int, Link]] = {}
    for one in replicas:
        name, generation = _name_and_generation(one.id)
        if name not in newest or newest[name][0] <= generation:
            newest[name] = generation, Link(one.batches, one.in_flight, one.batch_limit, {one.state: 1})
    return {name: link for name, (_, link) in newest.items()}


def replica_name(replica_id: str) -> str:
    """Return a replica's name without the number of its process, so that a restart does not begin new series."""
    return _name_and_generation(replica_id)[0]


# More than the replicas of a server, with some that were restarted.
@lru_cache(maxsize=16_384)
def _name_and_generation(replica_id: str) -> tuple[str, int]:
    match = _PROCESS_ID.fullmatch(replica_id)
    return (match["replica"], int(match["generation"])) if match else (replica_id, 0)
