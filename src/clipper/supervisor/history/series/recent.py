"""What came of the queries of the last minute, by application, and of the rows, by version."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from clipper.api.recent import LastMinute
from clipper.control.statistics import ApplicationStatistics, VersionStatistics
from clipper.values.types import ModelId

RECENT_S = 60.0

K = TypeVar("K", bound=Hashable)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Rows:
    """What came of the rows that a version was asked for.

    Attributes:
        last_error: the message of the latest failure; empty if it failed on none.
        sent: rows that replicas were sent.
        given_up: rows that were not sent although a replica was connected, since they would have been late.
    """

    outputs: int = 0
    failed: int = 0
    last_error: str = ""
    sent: int = 0
    given_up: int = 0


def answers_of(counted: ApplicationStatistics) -> LastMinute:
    """What came of the queries of one step."""
    defaults, errors = (
        {reason: count for reason, count in counts.items() if count} for counts in (counted.defaults, counted.errors)
    )
    reasons = defaults.keys() | errors.keys()
    return LastMinute(
        counted.queries,
        counted.slo_misses,
        defaults,
        errors,
        {reason: text for reason, text in counted.explanations.items() if reason in reasons},
    )


def sum_of_answers(all_: Iterable[LastMinute]) -> LastMinute:
    """The sum; explanations are those of the last that has one."""
    queries = late = 0
    defaults: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    explanations: dict[str, str] = {}
    for one in all_:
        queries, late = queries + one.queries, late + one.late
        defaults.update(one.defaults)
        errors.update(one.errors)
        explanations.update(one.explanations)
    return LastMinute(queries, late, dict(defaults), dict(errors), explanations)


def rows_of(counted: VersionStatistics) -> Rows:
    """What came of the rows of one step."""
    last_error = counted.last_error if counted.model_errors else ""
    given_up = counted.expired if counted.batch_limits else 0
    return Rows(counted.outputs, counted.model_errors, last_error, round(counted.batch_size.sum), given_up)


def sum_of_rows(all_: Iterable[Rows]) -> Rows:
    """The sum; the error is that of the last that has one."""
    found = list(all_)
    last = next((one.last_error for one in reversed(found) if one.last_error), "")
    outputs, failed, sent, given_up = (
        sum(counts) for counts in zip(*((one.outputs, one.failed, one.sent, one.given_up) for one in (Rows(), *found)))
    )
    return Rows(outputs, failed, last, sent, given_up)


class Window(Generic[K, S]):
    """What was counted in the steps of the last minute, by what it was counted of."""

    def __init__(self, total: Callable[[Iterable[S]], S]) -> None:
        self._total = total
        # At most a step every two seconds.
        self._steps: dict[K, deque[tuple[float, S]]] = {}

    def add(self, now_s: float, counted: Mapping[K, S]) -> None:
        for key, one in counted.items():
            self._steps.setdefault(key, deque()).append((now_s, one))
        for key, steps in list(self._steps.items()):
            while steps and steps[0][0] <= now_s - RECENT_S:
                steps.popleft()
            if not steps:
                del self._steps[key]

    def __iter__(self) -> Iterator[K]:
        """What something was counted of."""
        return iter(self._steps)

    def since(self, key: K, start_s: float) -> S:
        """The sum of the steps after ``start_s``, of those that are still there."""
        return self._total(one for at_s, one in self._steps.get(key, ()) if at_s > start_s)

    def forget(self, key: K) -> None:
        self._steps.pop(key, None)


class Recent:
    """The last minute of all applications and versions that are followed.

    Attributes:
        taken_s: when the latest step was added.
    """

    def __init__(self, now_s: float) -> None:
        self.taken_s = now_s
        self.applications: Window[str, LastMinute] = Window(sum_of_answers)
        self.versions: Window[ModelId, Rows] = Window(sum_of_rows)

    def add(
        self,
        now_s: float,
        applications: Mapping[str, ApplicationStatistics],
        versions: Mapping[ModelId, VersionStatistics],
    ) -> None:
        """Add a step: what was counted in it over all workers, and nothing of what was not counted."""
        self.taken_s = now_s
        self.applications.add(now_s, {name: answers_of(one) for name, one in applications.items()})
        self.versions.add(now_s, {key: rows_of(one) for key, one in versions.items()})

    def answers(self, application: str) -> LastMinute:
        """What came of an application's queries of the last minute."""
        return self.applications.since(application, self.taken_s - RECENT_S)

    def rows(self, version: ModelId) -> Rows:
        """What came of a version's rows of the last minute."""
        return self.versions.since(version, self.taken_s - RECENT_S)
