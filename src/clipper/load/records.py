"""The records of a run so far. All times are of one clock, in seconds."""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from hdrh.histogram import HdrHistogram

from clipper.load.answers import BY_MODEL, Answer, outcome_of
from clipper.load.report import Latencies, Percentile, Run, Second, SenderFacts

# In microseconds, exact to 0.1 %. A query waits for a connection and for its answer for at most a minute and some
# seconds each; a longer latency counts as the highest.
_HIGHEST_US = 200_000_000
_DIGITS = 3
_PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# Points of the percentiles' curve for each halving of the remaining share.
_TICKS_PER_HALF_DISTANCE = 4
# Distinct reasons and errors. Clipper has a dozen; a server that makes up new ones fills the table.
_MAX_KINDS = 40
_OTHER_KINDS = "others"
_TOO_MANY_REQUESTS = 429


class SenderCounts(Protocol):
    """A sender's counters. ``cut_off``: queries that had not ended when the sender was stopped."""

    peak_connections: int
    cut_off: int


class _OpenSecond:
    """Queries that were due in one second, of which some have not ended."""

    def __init__(self) -> None:
        self.offered = self.ended = self.by_model = self.good = self.defaults = self.errors = self.not_sent = (
            self.over_limit
        ) = 0
        self.latencies_us = HdrHistogram(1, _HIGHEST_US, _DIGITS)

    def row(self, second: int) -> Second:
        p99_us = self.latencies_us.get_value_at_percentile(99) if self.latencies_us.get_total_count() else None
        return Second(
            second=second,
            offered=self.offered,
            by_model=self.by_model,
            good=self.good,
            defaults=self.defaults,
            errors=self.errors,
            not_sent=self.not_sent,
            p99_ms=None if p99_us is None else p99_us / 1e3,
            over_limit=self.over_limit,
        )


class Records:
    """A sender's log. Call ``begin`` before the first query is due.

    Attributes:
        offered: queries that became due.
    """

    def __init__(self, slo_s: float) -> None:
        self._slo_s = slo_s
        self._began_s = 0.0
        self.offered = self._answered = self._by_model = self._good = self._late = self._not_sent = self._over_limit = 0
        self._defaults: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._open: dict[int, _OpenSecond] = {}
        self._rows: list[Second] = []
        self._latencies_us = HdrHistogram(1, _HIGHEST_US, _DIGITS)
        self._lags_us = HdrHistogram(1, _HIGHEST_US, _DIGITS)
        self._waited = 0
        self._longest_wait_s = 0.0

    def begin(self, began_s: float) -> None:
        self._began_s = began_s

    def due(self, number: int, due_s: float, seen_s: float) -> None:
        """Note a query that is due. The sender notices it at ``seen_s``; the difference is the sender's own lag."""
        self.offered += 1
        second = int(due_s - self._began_s)
        if second not in self._open:
            self._open[second] = _OpenSecond()
        self._open[second].offered += 1
        self._lags_us.record_value(min(int((seen_s - due_s) * 1e6) + 1, _HIGHEST_US))

    def waited(self, number: int, due_s: float, sent_s: float) -> None:
        self._waited += 1
        self._longest_wait_s = max(self._longest_wait_s, sent_s - due_s)

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None:
        latency_s = answered_s - due_s
        second = self._open[int(due_s - self._began_s)]
        second.latencies_us.record_value(min(int(latency_s * 1e6) + 1, _HIGHEST_US))
        second.ended += 1
        self._answered += 1
        is_late = latency_s > self._slo_s
        self._late += is_late
        if answer.status == _TOO_MANY_REQUESTS:
            self._over_limit += 1
            second.over_limit += 1
            return
        outcome = outcome_of(answer.status, answer.body)
        if outcome is BY_MODEL:
            self._by_model += 1
            second.by_model += 1
            if not is_late:
                self._good += 1
                second.good += 1
        elif outcome.default:
            _count(self._defaults, outcome.default)
            second.defaults += 1
        else:
            _count(self._errors, outcome.error)
            second.errors += 1

    def failed(self, number: int, due_s: float, why: str) -> None:
        _count(self._errors, why)
        second = self._open[int(due_s - self._began_s)]
        second.errors += 1
        second.ended += 1

    def not_sent(self, number: int, due_s: float) -> None:
        self._not_sent += 1
        second = self._open[int(due_s - self._began_s)]
        second.not_sent += 1
        second.ended += 1

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
        self._latencies_us.add(second.latencies_us)

    def last_second(self) -> Second | None:
        """Return the latest finished second, with what is known about it so far, for people who watch."""
        over = sorted(self._open)[:-1]
        if over:
            return self._open[over[-1]].row(over[-1])
        return self._rows[-1] if self._rows else None

    def run(self, rate_per_s: float, elapsed_s: float, cpu_share: float, sender: "SenderCounts") -> Run:
        """Return all records, once the run has ended.

        Args:
            rate_per_s: the requested rate.
            elapsed_s: how long queries became due.
            cpu_share: the sender's share of one processor.
            sender: its counters.
        """
        for first in sorted(self._open):
            self._close(first)
        return Run(
            rate_per_s=rate_per_s,
            elapsed_s=elapsed_s,
            slo_ms=self._slo_s * 1e3,
            offered=self.offered,
            not_sent=self._not_sent,
            unfinished=sender.cut_off,
            answered=self._answered,
            by_model=self._by_model,
            good=self._good,
            late=self._late,
            defaults=dict(self._defaults.most_common()),
            errors=dict(self._errors.most_common()),
            latency_ms=_latencies(self._latencies_us),
            sender=SenderFacts(
                lag_ms=_latencies(self._lags_us),
                cpu_share=cpu_share,
                connections=sender.peak_connections,
                waited_for_connection=self._waited,
                longest_wait_ms=self._longest_wait_s * 1e3,
            ),
            seconds=tuple(self._rows),
            percentiles=tuple(_curve(self._latencies_us)),
            over_limit=self._over_limit,
        )


def _count(counter: Counter[str], what: str) -> None:
    counter[what if what in counter or len(counter) < _MAX_KINDS else _OTHER_KINDS] += 1


def _latencies(histogram: HdrHistogram) -> Latencies | None:
    if not histogram.get_total_count():
        return None
    p50, p90, p99, p99_9 = (histogram.get_value_at_percentile(percent) / 1e3 for percent in _PERCENTILES)
    return Latencies(p50=p50, p90=p90, p99=p99, p99_9=p99_9, max=histogram.get_max_value() / 1e3)


def _curve(histogram: HdrHistogram) -> Iterator[Percentile]:
    if histogram.get_total_count():
        for item in histogram.get_percentile_iterator(_TICKS_PER_HALF_DISTANCE):
            yield Percentile(round(float(item.percentile_level_iterated_to), 5), item.value_iterated_to / 1e3)
