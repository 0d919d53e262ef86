"""A report in words and rows, for people."""

from collections.abc import Sequence

from clipper.cli.load.report import (
    KEPT_SHARE,
    Found,
    Report,
    Run,
    Second,
    grouped,
    keeps_slo,
    share,
    verdict,
    why_too_slow,
)
from clipper.cli.load.sweep import Verdict

# Nobody reads a longer table; in a longer run a line covers several seconds.
_MAX_SECONDS = 20

_VERDICTS = {
    Verdict.KEPT: "kept",
    Verdict.BROKEN: "broken",
    Verdict.SENDER_TOO_SLOW: "load generator too slow",
}

Row = Sequence[str]

COUNT_COLUMNS = ("queries", "", "share", "per s")
LATENCY_COLUMNS = ("ms", "p50", "p90", "p99", "p99.9", "max")
SECOND_COLUMNS = ("second", "offered", "by a model", "defaults", "errors", "over limit", "not sent", "p99 ms")
SWEEP_COLUMNS = ("rate/s", "goodput/s", "by a model", "p99 ms", "SLO")


def count_rows(run: Run) -> list[Row]:
    def row(name: str, count: int) -> Row:
        rate = count / run.elapsed_s if run.elapsed_s > 0 else 0.0
        return name, f"{count:,}", f"{share(count, run):.2%}", f"{rate:,.1f}"

    rows = [row("offered", run.offered), row("sent", run.sent), row("answered", run.answered)]
    rows += [row("by a model", run.by_model), row("  within the SLO: goodput", run.good)]
    rows += [row(f"default: {reason}", count) for reason, count in run.defaults.items()]
    rows += [row(f"error: {what}", count) for what, count in run.errors.items()]
    if run.over_limit:
        rows.append(row("over a limit (429)", run.over_limit))
    rows.append(row("late", run.late))
    if run.not_sent:
        rows.append(row("not sent", run.not_sent))
    if run.unfinished:
        rows.append(("cut off", f"{run.unfinished:,}", "", ""))
    return rows


def latency_rows(run: Run) -> list[Row]:
    rows = [("answered", run.latency_ms), ("sender's own lag", run.sender.lag_ms)]
    return [
        (name, *(f"{number:.2f}" for number in (found.p50, found.p90, found.p99, found.p99_9, found.max)))
        for name, found in rows
        if found is not None
    ]


def second_rows(run: Run) -> list[Row]:
    rows = grouped(run.seconds, _MAX_SECONDS)
    return [_second(row, after) for row, after in zip(rows, [*(row.second for row in rows[1:]), None])]


def _second(row: Second, after: int | None) -> Row:
    name = f"{row.second}" if after is None or after == row.second + 1 else f"{row.second}-{after - 1}"
    counts = row.offered, row.by_model, row.defaults, row.errors, row.over_limit, row.not_sent
    return name, *(f"{count:,}" for count in counts), "-" if row.p99_ms is None else f"{row.p99_ms:.1f}"


def sweep_rows(runs: Sequence[Run]) -> list[Row]:
    return [
        (
            f"{run.rate_per_s:,.1f}",
            f"{run.goodput_per_s:,.1f}",
            f"{share(run.by_model, run):.2%}",
            "-" if run.latency_ms is None else f"{run.latency_ms.p99:.1f}",
            _VERDICTS[verdict(run)],
        )
        for run in runs
    ]


def conclusion(report: Report) -> str:
    if report.found is not None:
        return _found(report.found, report.slo_ms)
    if len(report.runs) > 1:
        return "The sweep was cut off, or its server went away, before it came to a rate."
    (run,) = report.runs
    if run.latency_ms is None:
        return "Nothing was answered." if run.offered else "No query became due: the rate or the duration is too low."
    facts = f"p99 {run.latency_ms.p99:.1f} ms, {share(run.by_model, run):.2%} answered by a model"
    needs = f"p99 within it and {KEPT_SHARE:.0%} by a model"
    return f"The SLO of {run.slo_ms:g} ms is {'kept' if keeps_slo(run) else 'broken'}: {facts} ({needs} keep it)."


def _found(found: Found, slo_ms: float) -> str:
    if found.highest_per_s is None:
        why = "The load generator was too slow at" if found.limited_by_sender else f"The SLO of {slo_ms:g} ms breaks at"
        return f"{why} every rate that was tried, down to {found.too_high_per_s:,.1f} queries/s."
    text = f"Up to {found.highest_per_s:,.1f} queries/s the SLO of {slo_ms:g} ms is kept"
    if found.limited_by_sender:
        return f"{text}; above, the load generator could not keep up, so the server may do more."
    return f"{text}; at {found.too_high_per_s:,.1f} it is not." if found.too_high_per_s else f"{text}."


def warnings(report: Report) -> list[str]:
    """Return what to know about a run before believing its numbers. A sweep's rows and conclusion already say it."""
    if report.found is not None or len(report.runs) > 1:
        return []
    (run,) = report.runs
    found = []
    if why := why_too_slow(run):
        found.append(
            f"the load generator itself was too slow: {why}. Latencies are its own as well as the server's: lower the "
            "rate, or run it on an idle machine"
        )
    if run.over_limit:
        found.append(
            f"{run.over_limit:,} queries were refused because of a limit of the application or the key: `clipper app "
            "show` and `clipper key list` show the limits. This does not measure what the models can do"
        )
    most = report.max_connections
    if run.not_sent:
        found.append(
            f"{run.not_sent:,} queries were not sent: too many waited for one of {most} connections, or for too long, "
            "or they were noticed a second too late. An application's users would have waited for as many; "
            "--connections allows more"
        )
    elif run.sender.connections >= most and run.sender.waited_for_connection:
        found.append(
            f"{run.sender.waited_for_connection:,} queries waited for one of {most} connections, for up to "
            f"{run.sender.longest_wait_ms:,.0f} ms, which their latency counts; --connections allows more"
        )
    return found


def progress(rate_per_s: float, elapsed_s: float, second: Second | None) -> str:
    text = f"{elapsed_s:.0f} s at {rate_per_s:,.1f} queries/s"
    if second is None:
        return text
    p99 = "-" if second.p99_ms is None else f"{second.p99_ms:.1f} ms"
    return (
        f"{text}: in second {second.second} {second.by_model:,} of {second.offered:,} by a model, "
        f"{second.defaults:,} defaults, {second.errors:,} errors, p99 {p99}"
    )
