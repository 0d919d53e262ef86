"""Adds up statistics of several workers, field by field, whatever they are of.

Counts, histograms and what is so at present are summed. Some values cannot be, and have rules of their own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import sub
from typing import Any, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from clipper.control.statistics import ModelSelectionStatistics, SelectionStatistics
from clipper.learning.mathematics.guardrail import ENOUGH_FEEDBACK

S = TypeVar("S", bound=Struct)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _smallest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _furthest(values: Sequence[Any]) -> Any:
    """The latest of what workers know of one test. A test that has ended stays so: the others hear of it soon."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda test: (test.winner is not None, test.observations), default=None)


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _by_key(choose: Callable[[Iterable[float]], float]) -> Callable[[Sequence[Mapping[str, float]]], dict[str, float]]:
    def choose_each(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
        keys = {key: None for value in values for key in value}
        return {key: choose(value[key] for value in values if key in value) for key in keys}

    return choose_each


# Of these fields by name. All workers learn one calibration and one cost, or measure about the same. Of what a replica
# answers in a second the highest is right: the others saw it busy with batches that were not theirs.
_RULES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "cost": _mean,
    "calibration_error": _mean,
    "batch_limit": _smallest,
    "slo_s": _smallest,
    "batch_limits": _by_key(min),
    "rows_per_s": _by_key(max),
    "test": _furthest,
    "mark": _first,
    "trials": _first,
}
# What is so at present, and is no more once a worker has ended or does not tell.
_PRESENT: Mapping[str, Any] = {
    **dict.fromkeys(_RULES),
    "batch_limits": {},
    "rows_per_s": {},
    "mark": 0,
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
    """The sum of structs of one type, of which there is at least one. Texts are those of the first that has one."""
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
    """What was counted since ``before``: all of ``now`` if a count fell, because what counts was made anew. What is so
    at present is that of ``now``."""
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
    """What stays counted once its worker has ended: without what is so at present."""
    return _mapped(one, lambda number: number)


def negative(one: S) -> S:
    """What takes ``counted(one)`` away when it is added."""
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
    """Whether a count is lower than it was, or is gone, because what counts was made anew. Counts are integers: a sum
    of a user's own losses may fall."""
    return any(map(_fell, type(now).__struct_fields__, astuple(before), astuple(now)))


def _fell(name: str, before: Any, now: Any) -> bool:
    if name in _PRESENT or before == now:
        return False
    if isinstance(before, int):
        return now < before  # type: ignore[no-any-return]
    if isinstance(before, tuple):
        return any(map(int.__gt__, before, now))
    if isinstance(before, dict):
        return any(key not in now or _fell("", each, now[key]) for key, each in before.items())
    if isinstance(before, Struct):
        return now is None or has_fallen(before, now)
    return False


# What the answers are compared with: the best single model; or, if the policy learns by context, the best model of each
# context.
Against = Literal["model", "context"]


def regret(counted: SelectionStatistics | None) -> tuple[Against, float] | None:
    """Return what the answers have lost more, and than what; None without feedback."""
    most = 0 if counted is None else max((each.scored for each in counted.models.values()), default=0)
    if counted is None or not counted.answers_scored or not most:
        return None
    # A model of which little is known is left out: a newcomer's first answers may all be right.
    least = min(ENOUGH_FEEDBACK, most / 4)
    means = [_mean_loss(each) for each in counted.models.values() if each.scored >= least]
    # Without a context, also a policy that learns by context knows no more than one that does not.
    without_context = counted.answers_scored - counted.context_answers
    reference = counted.context_loss + without_context * min(means)
    return "context" if counted.context_answers else "model", counted.answer_loss - reference


def _mean_loss(model: ModelSelectionStatistics) -> float:
    """Return a model's mean loss over all queries with feedback: losses count by one over the probability that their
    query asked the model, where what came with the query picked it. An earlier version's worker does not weigh."""
    return model.weighted_loss / model.weight if model.weight > 0 else model.loss / model.scored
