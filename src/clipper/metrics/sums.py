"""Adds up statistics of several workers, field by field, whatever they are of.

Counts, histograms and what is so at present are summed. Some values cannot be, and have rules of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

S = TypeVar("S", bound=Struct)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _smallest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _furthest(values: Sequence[Any]) -> Any:
    """Of what each worker knows of one test over all of them. One that has ended stays so: others hear of it soon."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda test: (test.winner is not None, test.observations), default=None)


# Of these fields by name. All workers learn one calibration and one cost, or measure about the same.
_RULES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "cost": _mean,
    "calibration_error": _mean,
    "batch_limit": _smallest,
    "test": _furthest,
}
# What is so at present, and is no more once a worker has ended or does not tell.
_PRESENT: Mapping[str, Any] = {
    "queue_length": 0,
    "queue_bytes": 0,
    "contexts": 0,
    "in_flight": 0,
    "states": {},
    **dict.fromkeys(_RULES),
}


def total(parts: Sequence[S]) -> S:
    """The sum of structs of one type, of which there is at least one. Texts are those of the first."""
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
    return total(known) if isinstance(first, Struct) else first


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
    """Whether a count is lower than it was, or is there no more, because what counts was made anew.

    Counts are integers: a sum of losses may fall, since those of a user's own may be below 0.
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
        return any(key not in now or _fell("", each, now[key]) for key, each in before.items())
    if isinstance(before, Struct):
        return now is None or has_fallen(before, now)
    return False
