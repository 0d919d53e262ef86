"""The outcomes of the last minute's queries, and which applications and versions are in trouble."""

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from msgspec import Struct

from clipper.api.recent import ASKED_FOR, LastMinute
from clipper.control.statistics import ApplicationStatistics, VersionStatistics
from clipper.supervisor.metrics.totals import total
from clipper.values.types import ModelId

RECENT_S = 60.0

K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Struct)


class Rows(Struct, frozen=True):
    """The outcomes of the rows that a version was asked for.

    ``last_error`` is the message of the latest failure. ``given_up`` counts rows that were not sent although a replica
    was connected, since they would have been late.
    """

    outputs: int = 0
    failed: int = 0
    last_error: str = ""
    sent: int = 0
    given_up: int = 0


def answers_of(counted: ApplicationStatistics) -> LastMinute:
    defaults, errors = dict(+Counter(counted.defaults)), dict(+Counter(counted.errors))
    explanations = {name: text for name, text in counted.explanations.items() if name in defaults or name in errors}
    models = {} if counted.selection is None else counted.selection.models
    answered = {model: count for model, each in models.items() if (count := each.selected - each.missing) > 0}
    return LastMinute(counted.queries, counted.slo_misses, defaults, errors, explanations, answered)


def rows_of(counted: VersionStatistics) -> Rows:
    last_error = counted.last_error if counted.model_errors else ""
    given_up = counted.expired if counted.batch_limits else 0
    return Rows(counted.outputs, counted.model_errors, last_error, round(counted.batch_size.sum), given_up)


class Window(Generic[K, S]):
    """The counts of the steps of the last minute, by application and version. ``nothing``: those without a step."""

    def __init__(self, nothing: S) -> None:
        self._nothing = nothing
        # There is at most a step every two seconds.
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
        return iter(self._steps)

    def since(self, key: K, start_s: float) -> S:
        """Return the sum of the steps after ``start_s`` that are still kept; each text is the latest."""
        steps = [one for at_s, one in self._steps.get(key, ()) if at_s > start_s]
        return total([*reversed(steps), self._nothing])

    def forget(self, key: K) -> None:
        self._steps.pop(key, None)


class Recent:
    """The last minute of applications and versions. ``taken_s``: when the latest step was added."""

    def __init__(self, now_s: float) -> None:
        self.taken_s = now_s
        self.applications: Window[str, LastMinute] = Window(LastMinute())
        self.versions: Window[ModelId, Rows] = Window(Rows())

    def add(
        self,
        now_s: float,
        applications: Mapping[str, ApplicationStatistics],
        versions: Mapping[ModelId, VersionStatistics],
    ) -> None:
        """Add a step: the counts of all workers in it."""
        self.taken_s = now_s
        self.applications.add(now_s, {name: answers_of(one) for name, one in applications.items()})
        self.versions.add(now_s, {key: rows_of(one) for key, one in versions.items()})

    def answers(self, application: str) -> LastMinute:
        return self.applications.since(application, self.taken_s - RECENT_S)

    def rows(self, version: ModelId) -> Rows:
        return self.versions.since(version, self.taken_s - RECENT_S)


# The alert ClipperLate of deploy/prometheus uses the same share, and refers to this one.
BEGINS_SHARE = 0.05
ENDS_SHARE = 0.025
# A single failed query is no trouble for an application that is asked once a minute.
BEGINS_COUNT = 3
# Several steps of the sampler, so that one good step between bad ones does not end the trouble.
SOON_S = 20.0

Kind = Literal["failed", "late", "errors", "unsent"]


@dataclass(frozen=True, slots=True, order=True)
class Trouble:
    """The trouble of an application, whose queries fail or are late, or of a version.

    A version is in trouble if its rows fail, or if all of them are given up before they are sent.
    """

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Share:
    wrong: int
    of: int

    @classmethod
    def of_queries(cls, wrong: int, queries: int) -> "Share":
        """Make the share of ``queries`` that went wrong; some of these may have been asked before that time."""
        return cls(wrong, max(wrong, queries))

    def is_least(self, share: float) -> bool:
        return self.wrong > 0 and self.wrong >= share * self.of


def is_on(was_on: bool, minute: Share, soon: Share) -> bool:
    """Whether there is trouble, by what went wrong in the last minute and in the last ``SOON_S``."""
    if not was_on:
        return minute.wrong >= BEGINS_COUNT and minute.is_least(BEGINS_SHARE) and soon.is_least(BEGINS_SHARE)
    # Without queries in the last seconds, nothing shows that the trouble is over.
    return minute.is_least(ENDS_SHARE) and (not soon.of or soon.is_least(ENDS_SHARE))


class Health:
    """Decides which applications and versions are in trouble: facts in by ``look``, problems out."""

    def __init__(self) -> None:
        self._told: dict[Trouble, str] = {}

    def look(self, recent: Recent) -> None:
        before, self._told = self._told, {}
        soon_s = recent.taken_s - SOON_S
        for name in recent.applications:
            answers = recent.answers(name)
            if not (answers.late or answers.errors or answers.defaults):
                continue  # the common case
            soon = recent.applications.since(name, soon_s)
            trouble, failed = Trouble("failed", name), Share.of_queries(answers.failures.total(), answers.queries)
            if is_on(trouble in before, failed, Share.of_queries(soon.failures.total(), soon.queries)):
                self._told[trouble] = _failed_text(name, failed, answers)
            trouble, late = Trouble("late", name), Share.of_queries(answers.late_outputs, answers.queries)
            if is_on(trouble in before, late, Share.of_queries(soon.late_outputs, soon.queries)):
                of = f"{late.wrong} of {late.of} answers in the last minute"
                self._told[trouble] = f"application {name!r}: {of} were later than its SLO"
        for version in recent.versions:
            rows, soon_rows = recent.rows(version), recent.versions.since(version, soon_s)
            trouble, unsent = Trouble("unsent", str(version)), Share(rows.given_up, rows.given_up + rows.sent)
            if unsent.wrong >= BEGINS_COUNT and not rows.sent:
                self._told[trouble] = (
                    f"model {trouble.name} was asked for {unsent.of} inputs in the last minute and sent none: by its "
                    "learned times all would be late"
                )
            trouble, errors = Trouble("errors", str(version)), Share(rows.failed, rows.failed + rows.outputs)
            if is_on(trouble in before, errors, Share(soon_rows.failed, soon_rows.failed + soon_rows.outputs)):
                of = f"{errors.wrong} of {errors.of} inputs in the last minute"
                self._told[trouble] = f"model {trouble.name} failed on {of}; its last error: {_line(rows.last_error)}"

    def fails(self, version: ModelId) -> bool:
        return Trouble("errors", str(version)) in self._told

    def problems(self) -> list[str]:
        """Return a line for each trouble, with its cause; applications come first."""
        return [
            self._told[trouble]
            for trouble in sorted(self._told, key=lambda one: (one.kind in ("errors", "unsent"), one.name))
        ]


def _failed_text(name: str, failed: Share, answers: LastMinute) -> str:
    failures = answers.failures
    kinds = ["an error"] * bool(answers.errors) + ["its default"] * bool(answers.defaults.keys() - {ASKED_FOR})
    reasons = ", ".join(f"{count} {reason}" for reason, count in failures.most_common())
    (most, _), *_ = failures.most_common(1)
    return (
        f"application {name!r}: {failed.wrong} of {failed.of} queries in the last minute got "
        f"{' or '.join(kinds)} ({reasons}); the last {most}: {_line(answers.explanations.get(most, 'not known'))}"
    )


def _line(text: str) -> str:
    """Return a message as a single line: a model's may have several lines, like a traceback."""
    return " ".join(text.split())
