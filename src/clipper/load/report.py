"""What is told of a load: the numbers, which are also the JSON of ``--json``, and what follows from them."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, to_builtins

from clipper.load.sweep import Verdict

# Goes up when a field changes its meaning or goes away; new fields may come at any time.
SCHEMA_VERSION = 1

# The SLO is kept if the p99 is within it and so large a share is answered by a model.
KEPT_SHARE = 0.99

# The sender is too slow if its own lag, which counts as the server's latency, is a tenth of the SLO at p99. Less than
# half a millisecond is the machine's own noise, and ten can be seen in any diagram.
_LAG_OF_SLO, _LEAST_LAG_MS, _MOST_LAG_MS = 0.1, 0.5, 10.0
# Above, its lag grows without end, whether it has yet or not.
_MAX_CPU_SHARE = 0.95


class Latencies(Struct, frozen=True):
    """In milliseconds, to 0.1 %."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


class Percentile(Struct, frozen=True):
    """``percent`` of all answers took at most ``latency_ms``."""

    percent: float
    latency_ms: float


class Second(Struct, frozen=True):
    """What became of the queries that were due in one second, or in several that begin with ``second``.

    Attributes:
        over_limit: refused as over a limit of the application's or the key's, which is no error.
        p99_ms: of several seconds, the worst one's; None if nothing was answered.
    """

    second: int
    offered: int
    by_model: int
    good: int
    defaults: int
    errors: int
    not_sent: int
    p99_ms: float | None
    over_limit: int = 0


class SenderFacts(Struct, frozen=True):
    """How the load generator itself fared.

    Attributes:
        lag_ms: from when queries were due until it saw that; None if none was.
        cpu_share: of one processor.
        connections: open at once, at most.
        waited_for_connection: queries for which no connection was free when they were due.
    """

    lag_ms: Latencies | None
    cpu_share: float
    connections: int
    waited_for_connection: int
    longest_wait_ms: float


class Run(Struct, frozen=True):
    """One rate for some time. ``offered`` is ``answered`` and the ``errors`` that are no answers and the other two.

    Attributes:
        rate_per_s: what was asked for; chance makes ``offered`` a little more or less.
        elapsed_s: for how long queries became due.
        offered: queries that were due.
        not_sent: given up, since too many waited for a connection.
        unfinished: neither answered nor given up when the run was cut off.
        answered: with any status.
        by_model: answered with a model's output.
        good: the same, and within the SLO.
        late: answered, in whatever way, after the SLO.
        defaults: answered with the default, by reason.
        errors: by status and code, or by what befell the connection.
        over_limit: refused as over a limit of the application's or the key's (status 429), which is no error.
        latency_ms: of all answers, from when their queries were due; None if there are none.
    """

    rate_per_s: float
    elapsed_s: float
    slo_ms: float
    offered: int
    not_sent: int
    unfinished: int
    answered: int
    by_model: int
    good: int
    late: int
    defaults: dict[str, int]
    errors: dict[str, int]
    latency_ms: Latencies | None
    sender: SenderFacts
    seconds: tuple[Second, ...]
    percentiles: tuple[Percentile, ...]
    over_limit: int = 0

    @property
    def goodput_per_s(self) -> float:
        return self.good / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def sent(self) -> int:
        return self.offered - self.not_sent


class Found(Struct, frozen=True):
    """What a sweep found.

    Attributes:
        highest_per_s: the highest rate tried that kept the SLO; None if none did.
        too_high_per_s: the lowest that did not; None if all did.
        limited_by_sender: above ``highest_per_s`` it was the load generator that could not keep up.
    """

    highest_per_s: float | None
    too_high_per_s: float | None
    limited_by_sender: bool


class Report(Struct, frozen=True):
    """A whole load.

    Attributes:
        application: its name.
        url: where its queries went.
        inputs: what was sent, in words.
        slo_of: ``application``, or ``option`` where ``--slo-ms`` said so.
        runs: one, or of a sweep as many as were tried, in order.
        found: None unless it was a sweep that came to its end.
    """

    application: str
    url: str
    arrivals: str
    inputs: str
    slo_ms: float
    slo_of: str
    max_connections: int
    interrupted: bool
    runs: tuple[Run, ...]
    found: Found | None = None


def share(part: int, run: Run) -> float:
    """``part`` of the queries of which the end is known."""
    return part / max(1, run.offered - run.unfinished)


def why_too_slow(run: Run) -> str | None:
    """Why the numbers say less of the server than of the load generator, or None if they do not."""
    sender = run.sender
    if sender.lag_ms is not None and sender.lag_ms.p99 > max_lag_ms(run.slo_ms):
        return (
            f"it saw 1 % of the queries {sender.lag_ms.p99:.1f} ms or more after they were due: expected at most "
            f"{max_lag_ms(run.slo_ms):g} ms"
        )
    if sender.cpu_share > _MAX_CPU_SHARE:
        return f"it took {sender.cpu_share:.0%} of one processor, which is all that it can"
    return None


def max_lag_ms(slo_ms: float) -> float:
    return min(max(slo_ms * _LAG_OF_SLO, _LEAST_LAG_MS), _MOST_LAG_MS)


def keeps_slo(run: Run) -> bool:
    return run.latency_ms is not None and run.latency_ms.p99 <= run.slo_ms and share(run.by_model, run) >= KEPT_SHARE


def verdict(run: Run) -> Verdict:
    """The load generator is to blame where the SLO would be kept without its own lag. No query breaks no SLO."""
    if keeps_slo(run) or not run.offered:
        return Verdict.KEPT
    latency, lag = run.latency_ms, run.sender.lag_ms
    if latency is None or lag is None or why_too_slow(run) is None:
        return Verdict.BROKEN
    is_servers = latency.p99 - lag.p99 > run.slo_ms or share(run.by_model, run) < KEPT_SHARE
    return Verdict.BROKEN if is_servers else Verdict.SENDER_TOO_SLOW


def as_document(report: Report) -> dict[str, Any]:
    """What ``--json`` writes: the report, and of each run what follows from its numbers."""
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **to_builtins(report)}
    document["runs"] = [
        {
            **told,
            "sent": run.sent,
            "goodput_per_s": run.goodput_per_s,
            "by_model_share": share(run.by_model, run),
            "late_share": share(run.late, run),
            "slo_kept": keeps_slo(run),
            "too_slow": why_too_slow(run),
        }
        for run, told in zip(report.runs, document["runs"])
    ]
    return document


def grouped(seconds: Sequence[Second], most: int) -> list[Second]:
    """No more than ``most`` rows, each of as many seconds in a row."""
    size = -(-len(seconds) // most) or 1
    return [_together(seconds[first : first + size]) for first in range(0, len(seconds), size)]


def _together(seconds: Sequence[Second]) -> Second:
    return Second(
        second=seconds[0].second,
        offered=sum(each.offered for each in seconds),
        by_model=sum(each.by_model for each in seconds),
        good=sum(each.good for each in seconds),
        defaults=sum(each.defaults for each in seconds),
        errors=sum(each.errors for each in seconds),
        not_sent=sum(each.not_sent for each in seconds),
        over_limit=sum(each.over_limit for each in seconds),
        p99_ms=max((each.p99_ms for each in seconds if each.p99_ms is not None), default=None),
    )
