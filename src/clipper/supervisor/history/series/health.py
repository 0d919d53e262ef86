"""Decides which applications and versions are in trouble, by what came of the queries of the last minute.

A trouble begins once ``BEGINS_SHARE`` of the queries of the last minute, and ``BEGINS_COUNT`` of them, went wrong. It
ends once less than ``ENDS_SHARE`` of them did, or of those of the last ``SOON_S``: a cause that is over is not told for
a minute, and a share about the bound does not come and go.
"""

from dataclasses import dataclass
from typing import Literal

from clipper.api.recent import ASKED_FOR, LastMinute
from clipper.supervisor.history.series.recent import Recent

# The alert ClipperLate of deploy/prometheus has the same share, and sends its reader here.
BEGINS_SHARE = 0.05
ENDS_SHARE = 0.025
# One query that fails is no trouble of an application that is asked once a minute.
BEGINS_COUNT = 3
# Some steps of the sampler, so that one good step between bad ones does not end it.
SOON_S = 20.0

Kind = Literal["failed", "late", "errors", "unsent"]


@dataclass(frozen=True, slots=True, order=True)
class Trouble:
    """What goes wrong: queries of the application ``name`` that fail or are late, or rows of the version ``name`` that
    fail or are all given up before they are sent."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Share:
    """How many of so many went wrong."""

    wrong: int
    of: int

    @classmethod
    def of_queries(cls, wrong: int, queries: int) -> "Share":
        """``queries`` were asked in the time; some of those that went wrong in it may have been asked before."""
        return cls(wrong, max(wrong, queries))

    def is_least(self, share: float) -> bool:
        return self.wrong > 0 and self.wrong >= share * self.of


def is_on(was_on: bool, minute: Share, soon: Share) -> bool:
    """Whether a trouble is there.

    Args:
        was_on: whether it was there before.
        minute, soon: what went wrong in the last minute and in the last ``SOON_S``.
    """
    if not was_on:
        return minute.wrong >= BEGINS_COUNT and minute.is_least(BEGINS_SHARE) and soon.is_least(BEGINS_SHARE)
    # Without anything in the last seconds it is not known to be over.
    return minute.is_least(ENDS_SHARE) and (not soon.of or soon.is_least(ENDS_SHARE))


class Health:
    """Facts in by ``look``, problems out."""

    def __init__(self) -> None:
        self._told: dict[Trouble, str] = {}

    def look(self, recent: Recent) -> None:
        """Judge by what was counted up to now."""
        before, self._told = self._told, {}
        soon_s = recent.taken_s - SOON_S
        for name in recent.applications:
            answers = recent.answers(name)
            if not (answers.late or answers.errors or answers.defaults):
                continue  # as nearly always
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

    def problems(self) -> list[str]:
        """A line for each trouble, with its cause; those of applications first."""
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
    """A model's message may have several lines, as a traceback has."""
    return " ".join(text.split())
