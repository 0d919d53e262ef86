"""A load's options and its report: the numbers, which are also the JSON of ``--json``, and the conclusions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct, to_builtins

from clipper.base.tls.trust import ClientTls
from clipper.cli.load.arrivals import Arrivals
from clipper.cli.load.sweep import Verdict
from clipper.values.records import ValueType

# Increases when a field changes its meaning or is removed; new fields may be added at any time.
SCHEMA_VERSION = 1

# The SLO is kept if the p99 is within it and this share of the queries is answered by a model.
KEPT_SHARE = 0.99

# The sender is too slow if the p99 of its own lag, which inflates the measured latency, is a tenth of the SLO. A lag
# below half a millisecond is the machine's noise, and one of ten milliseconds is visible in any diagram.
_LAG_OF_SLO, _LEAST_LAG_MS, _MOST_LAG_MS = 0.1, 0.5, 10.0
# Above this share the lag grows for ever, even if it is still small.
_MAX_CPU_SHARE = 0.95


class Latencies(Struct, frozen=True):
    """Latencies in milliseconds, exact to 0.1 %."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


class Percentile(Struct, frozen=True):
    """``percent`` of all answers took at most ``latency_ms``."""

    percent: float
    latency_ms: float


# The counts of a second, which are summed over seconds.
COUNTED = ("offered", "by_model", "good", "defaults", "errors", "not_sent", "over_limit")


class Second(Struct, frozen=True):
    """The outcomes of the queries that were due in a second, or in several seconds that begin with ``second``.

    Attributes:
        over_limit: queries that a limit of the application or the key refused, which is not an error.
        p99_ms: for several seconds, that of the worst; None if nothing was answered.
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
    """The load generator's own performance.

    Attributes:
        lag_ms: the time from when queries were due until the sender noticed; None if there were no queries.
        cpu_share: its share of a processor.
        connections: the largest number of open connections.
        waited_for_connection: queries for which no connection was free when they were due.
    """

    lag_ms: Latencies | None
    cpu_share: float
    connections: int
    waited_for_connection: int
    longest_wait_ms: float


class Run(Struct, frozen=True):
    """The result of loading at one rate for some time.

    Attributes:
        rate_per_s: the requested rate; by chance ``offered`` is slightly higher or lower.
        elapsed_s: how long queries became due.
        offered: queries that were due: ``answered``, ``errors`` without an answer, ``not_sent`` and ``unfinished``.
        not_sent: queries that were given up, since too many waited for a connection.
        unfinished: queries that were neither answered nor given up when the run was cut off.
        answered: queries that were answered with any status.
        by_model: queries that were answered with a model's output.
        good: the queries of ``by_model`` whose answers came within the SLO.
        late: queries whose answers, of any kind, came after the SLO.
        defaults: queries that were answered with the default, by reason.
        errors: by status and code, or by what happened to the connection.
        over_limit: queries that a limit of the application or the key refused (status 429), which is not an error.
        latency_ms: latencies of all answers, from when their queries were due; None if there are none.
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
    """The result of a sweep.

    Attributes:
        highest_per_s: the highest tried rate that kept the SLO; None if no rate did.
        too_high_per_s: the lowest tried rate that broke the SLO; None if no rate did.
        limited_by_sender: whether the load generator could not keep up above ``highest_per_s``.
    """

    highest_per_s: float | None
    too_high_per_s: float | None
    limited_by_sender: bool


class Report(Struct, frozen=True):
    """The report on a whole load.

    Attributes:
        inputs: the inputs in words.
        slo_of: the source of the SLO: ``application``, or ``option`` for ``--slo-ms``.
        runs: a single run, or for a sweep those of all tried rates, in order.
        found: None unless a sweep came to its end.
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


# Called once a second with the rate, the elapsed time and the latest finished second, to draw the progress. A call
# delays the sending by half a millisecond.
Watch = Callable[[float, float, Second | None], None]


def share(part: int, run: Run) -> float:
    """Return the share of ``part`` among the queries whose end is known."""
    return part / max(1, run.offered - run.unfinished)


def why_too_slow(run: Run) -> str | None:
    """Return why the numbers say more about the load generator than about the server; None if they do not."""
    sender = run.sender
    if sender.lag_ms is not None and sender.lag_ms.p99 > max_lag_ms(run.slo_ms):
        return (
            f"it noticed 1 % of the queries {sender.lag_ms.p99:.1f} ms or more after they were due: expected at most "
            f"{max_lag_ms(run.slo_ms):g} ms"
        )
    if sender.cpu_share > _MAX_CPU_SHARE:
        return f"it took {sender.cpu_share:.0%} of one processor, which is all that it can use"
    return None


def max_lag_ms(slo_ms: float) -> float:
    return min(max(slo_ms * _LAG_OF_SLO, _LEAST_LAG_MS), _MOST_LAG_MS)


def keeps_slo(run: Run) -> bool:
    return run.latency_ms is not None and run.latency_ms.p99 <= run.slo_ms and share(run.by_model, run) >= KEPT_SHARE


def verdict(run: Run) -> Verdict:
    """Judge a run. The sender is too slow if the SLO would be kept without its lag. No queries keep the SLO."""
    if keeps_slo(run) or not run.offered:
        return Verdict.KEPT
    latency, lag = run.latency_ms, run.sender.lag_ms
    if latency is None or lag is None or why_too_slow(run) is None:
        return Verdict.BROKEN
    is_servers = latency.p99 - lag.p99 > run.slo_ms or share(run.by_model, run) < KEPT_SHARE
    return Verdict.BROKEN if is_servers else Verdict.SENDER_TOO_SLOW


def as_document(report: Report) -> dict[str, Any]:
    """Return the document of ``--json``: the report, and for each run the conclusions from its numbers."""
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
    """Return at most ``most`` rows, each of equally many consecutive seconds."""
    size = -(-len(seconds) // most) or 1
    return [_together(seconds[first : first + size]) for first in range(0, len(seconds), size)]


def _together(seconds: Sequence[Second]) -> Second:
    worst_ms = max((each.p99_ms for each in seconds if each.p99_ms is not None), default=None)
    counts = {name: sum(getattr(each, name) for each in seconds) for name in COUNTED}
    return Second(second=seconds[0].second, p99_ms=worst_ms, **counts)


class LoadedApplication(NamedTuple):
    """The application that is asked, and its SLO.

    Attributes:
        input_type: None if it is not known; then the inputs come from a file.
        tls: the certificate to trust, if queries use TLS.
    """

    application: str
    query_url: str
    input_type: ValueType | None
    slo_ms: float
    slo_of: str
    tls: ClientTls


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of a load.

    Attributes:
        rate_per_s: the rate; in a sweep, the first rate.
        inputs: a file, or None for random inputs.
        width: the length of open dimensions in random inputs; None for the default.
    """

    rate_per_s: float
    duration_s: float
    sweep: bool
    inputs: Path | None
    width: int | None
    arrivals: Arrivals
    max_connections: int
    api_key: str | None = None
