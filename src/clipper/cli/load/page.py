"""A report as one self-contained HTML file, without scripts or network access."""

from html import escape

from clipper.api.pages import Axis, Line, chart, document, table
from clipper.cli.load import summary
from clipper.cli.load.report import Report, Run, grouped

# More points than pixels would only make the file larger.
_MAX_POINTS = 600
# The axis of percentiles is logarithmic in the share above: each step is a tenth of the previous one.
_PERCENT_TICKS = ((1.0, "0"), (2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"))


def as_page(report: Report) -> str:
    parts = [f"<h1>Load on {escape(report.application)}</h1>", f"<p>{escape(_setting(report))}</p>"]
    parts.append(f"<p><b>{escape(summary.conclusion(report))}</b></p>")
    parts += [f'<p class="warning">{escape(text)}</p>' for text in summary.warnings(report)]
    parts += _sweep(report) if len(report.runs) != 1 or report.found else _run(report.runs[0])
    return document(f"clipper load {report.application}", parts)


def _setting(report: Report) -> str:
    cut = "; cut off before its end" if report.interrupted else ""
    return (
        f"{report.arrivals} arrivals at {report.url}; {report.inputs}; SLO {report.slo_ms:g} ms; at most "
        f"{report.max_connections} connections{cut}. Latency counts from when a query was due."
    )


def _run(run: Run) -> list[str]:
    rows = grouped(run.seconds, _MAX_POINTS)
    size = rows[1].second - rows[0].second if len(rows) > 1 else 1
    bad = [(row.second, (row.defaults + row.errors + row.over_limit + row.not_sent) / size) for row in rows]
    curve = [(100 / max(100 - each.percent, 1e-3), each.latency_ms) for each in run.percentiles]
    ends = (1.0, max([x for x, _ in curve], default=1.0))
    return [
        table(summary.COUNT_COLUMNS, summary.count_rows(run)),
        table(summary.LATENCY_COLUMNS, summary.latency_rows(run)),
        chart(
            "Latency by percentile",
            Axis("percentile", "log", _PERCENT_TICKS),
            Axis("ms", "log"),
            [Line("latency", curve), Line("SLO", [(x, run.slo_ms) for x in ends] if curve else [], dashed=True)],
        ),
        chart(
            "Latency over time",
            Axis("second"),
            Axis("ms"),
            [
                Line("p99", [(row.second, row.p99_ms) for row in rows]),
                Line("SLO", [(row.second, run.slo_ms) for row in rows], dashed=True),
            ],
        ),
        chart(
            "Queries over time",
            Axis("second"),
            Axis("per s"),
            [
                Line("offered", [(row.second, row.offered / size) for row in rows], dashed=True),
                Line("defaults, errors, over a limit and not sent", bad),
                Line("goodput", [(row.second, row.good / size) for row in rows]),
            ],
        ),
    ]


def _sweep(report: Report) -> list[str]:
    # A rate that was tried again counts by its last run.
    runs = sorted({run.rate_per_s: run for run in report.runs}.values(), key=lambda run: run.rate_per_s)
    return [
        table(summary.SWEEP_COLUMNS, summary.sweep_rows(report.runs)),
        chart(
            "Goodput over offered load",
            Axis("queries/s offered"),
            Axis("per s"),
            [
                Line("goodput", [(run.rate_per_s, run.goodput_per_s) for run in runs]),
                Line("offered", [(run.rate_per_s, run.rate_per_s) for run in runs], dashed=True),
            ],
        ),
        chart(
            "p99 over offered load",
            Axis("queries/s offered"),
            Axis("ms", "log"),
            [
                Line("p99", [(run.rate_per_s, run.latency_ms.p99 if run.latency_ms else None) for run in runs]),
                Line("SLO", [(run.rate_per_s, run.slo_ms) for run in runs], dashed=True),
            ],
        ),
    ]
