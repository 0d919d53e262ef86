"""The records of a run so far, and the meaning of each answer. All times are of one clock, in seconds."""

import re
from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct

from clipper.base.http1 import Answer
from clipper.cli.load.histogram import Histogram
from clipper.cli.load.report import COUNTED, Latencies, Percentile, Run, Second, SenderFacts

# The highest latency, in microseconds; longer latencies count as this. A query waits at most a minute and some seconds
# for a connection, and as long for its answer.
_HIGHEST_US = 200_000_000
# Those of ``Latencies``.
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
# Points of the curve of percentiles for each halving of the remaining share.
_TICKS_PER_HALF_DISTANCE = 4
# Distinct reasons and errors. Clipper has a dozen; a server that makes up new ones fills the table.
_MAX_KINDS = 40
_OTHER_KINDS = "others"
_TOO_MANY_REQUESTS = 429

# Bound of a reason or code, longer than Clipper's. It goes to terminals, so only characters of codes are kept.
_MAX_CODE_LENGTH = 40
_NO_CODE = re.compile(r"[^\w .:-]", re.ASCII)


class _Body(Struct, gc=False):
    """The fields of an answer that show the query's outcome; the output itself is skipped."""

    default: bool = False
    default_reason: str = ""
    error: str = ""


_decode = msgspec.json.Decoder(_Body).decode


class Outcome(Struct, frozen=True, gc=False):
    """The outcome of a query; empty if a model answered it.

    ``default`` is why it was answered with the default. ``error`` is why it was not answered: the status and its code,
    or what happened to the connection.
    """

    default: str = ""
    error: str = ""


BY_MODEL = Outcome()


def outcome_of(status: int, body: bytes) -> Outcome:
    try:
        told = _decode(body)
    except (msgspec.DecodeError, UnicodeError):
        # The answer is not Clipper's, but for example a proxy's page.
        return Outcome(error=f"{status} not a prediction")
    if status != 200 or told.error:
        return Outcome(error=f"{status} {_code(told.error)}".strip())
    return Outcome(default=_code(told.default_reason) or "no reason") if told.default else BY_MODEL


def _code(text: str) -> str:
    return _NO_CODE.sub("?", text[:_MAX_CODE_LENGTH])


class _OpenSecond:
    """Queries that were due in one second, of which some have not ended. See ``Second``."""

    def __init__(self) -> None:
        self.offered = self.ended = self.by_model = self.good = self.defaults = self.errors = self.not_sent = (
            self.over_limit
        ) = 0
        self.latencies = Histogram(_HIGHEST_US)

    def row(self, second: int) -> Second:
        counts = {name: getattr(self, name) for name in COUNTED}
        return Second(
            second=second, p99_ms=self.latencies.percentile_ms(99) if self.latencies.count else None, **counts
        )


class Records:
    """A sender's log of all queries, by the time when they were due. Call ``begin`` before the first query is due.

    ``due`` comes first. Each query then ends once: with ``answered``, ``failed`` or ``not_sent``.
    """

    def __init__(self, slo_s: float) -> None:
        self._slo_s = slo_s
        self._began_s = 0.0
        self._answered = self._late = 0
        self._defaults: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._open: dict[int, _OpenSecond] = {}
        self._rows: list[Second] = []
        self._latencies = Histogram(_HIGHEST_US)
        self._lags = Histogram(_HIGHEST_US)
        self._waited = 0
        self._longest_wait_s = 0.0

    def begin(self, began_s: float) -> None:
        self._began_s = began_s

    def due(self, number: int, due_s: float, seen_s: float) -> None:
        """Note a query that is due. The sender notices it at ``seen_s``; the difference is the sender's own lag."""
        second = int(due_s - self._began_s)
        if second not in self._open:
            self._open[second] = _OpenSecond()
        self._open[second].offered += 1
        self._lags.record(seen_s - due_s)

    def waited(self, number: int, due_s: float, sent_s: float) -> None:
        """Note a query that was sent after a wait for a connection."""
        self._waited += 1
        self._longest_wait_s = max(self._longest_wait_s, sent_s - due_s)

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None:
        latency_s = answered_s - due_s
        second = self._ended(due_s)
        second.latencies.record(latency_s)
        self._answered += 1
        is_late = latency_s > self._slo_s
        self._late += is_late
        if answer.status == _TOO_MANY_REQUESTS:
            second.over_limit += 1
            return
        outcome = outcome_of(answer.status, answer.body)
        if outcome is BY_MODEL:
            second.by_model += 1
            second.good += not is_late
        elif outcome.default:
            _count(self._defaults, outcome.default)
            second.defaults += 1
        else:
            _count(self._errors, outcome.error)
            second.errors += 1

    def failed(self, number: int, due_s: float, why: str) -> None:
        _count(self._errors, why)
        self._ended(due_s).errors += 1

    def not_sent(self, number: int, due_s: float) -> None:
        self._ended(due_s).not_sent += 1

    def _ended(self, due_s: float) -> _OpenSecond:
        second = self._open[int(due_s - self._began_s)]
        second.ended += 1
        return second

    def close_seconds(self) -> None:
        """Make rows, in order, of the seconds before the first one with queries that have not ended.

        A second stays open for as long as an answer may take, so there are never many.
        """
        for first in sorted(self._open)[:-1]:
            if self._open[first].ended < self._open[first].offered:
                return
            self._close(first)

    def _close(self, first: int) -> None:
        second = self._open.pop(first)
        self._rows.append(second.row(first))
        self._latencies.add(second.latencies)

    def last_second(self) -> Second | None:
        """Return the latest finished second, as far as its queries have ended, for display."""
        over = sorted(self._open)[:-1]
        if over:
            return self._open[over[-1]].row(over[-1])
        return self._rows[-1] if self._rows else None

    def run(self, rate_per_s: float, elapsed_s: float, cpu_share: float, peak_connections: int, cut_off: int) -> Run:
        """Return all records, once the run has ended. The arguments are fields of ``Run`` and of ``SenderFacts``."""
        for first in sorted(self._open):
            self._close(first)
        totals: dict[str, Any] = {name: sum(getattr(row, name) for row in self._rows) for name in COUNTED}
        totals["defaults"], totals["errors"] = dict(self._defaults.most_common()), dict(self._errors.most_common())
        return Run(
            rate_per_s=rate_per_s,
            elapsed_s=elapsed_s,
            slo_ms=self._slo_s * 1e3,
            unfinished=cut_off,
            answered=self._answered,
            late=self._late,
            latency_ms=_latencies(self._latencies),
            sender=SenderFacts(
                lag_ms=_latencies(self._lags),
                cpu_share=cpu_share,
                connections=peak_connections,
                waited_for_connection=self._waited,
                longest_wait_ms=self._longest_wait_s * 1e3,
            ),
            seconds=tuple(self._rows),
            percentiles=tuple(
                Percentile(round(percent, 5), ms) for percent, ms in self._latencies.curve(_TICKS_PER_HALF_DISTANCE)
            ),
            **totals,
        )


def _count(counter: Counter[str], what: str) -> None:
    counter[what if what in counter or len(counter) < _MAX_KINDS else _OTHER_KINDS] += 1


def _latencies(histogram: Histogram) -> Latencies | None:
    return Latencies(*map(histogram.percentile_ms, _PERCENTILES)) if histogram.count else None
