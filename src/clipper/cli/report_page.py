"""Makes one HTML file of a report."""

from html import escape
from time import localtime, strftime

from clipper.cli import report_summary as summary
from clipper.management.reports import Report, ReportGroup
from clipper.pages.charts import Axis, Whisker, whiskers
from clipper.pages.document import document, table


def as_page(report: Report) -> str:
    parts = [f"<h1>The models of {escape(report.application)}</h1>"]
    for group in report.groups:
        parts += _group(report, group)
    parts += [f"<p>{escape(note[:1].upper() + note[1:])}.</p>" for note in summary.notes(report)]
    made = strftime("%Y-%m-%d %H:%M:%S %Z", localtime(report.time_s))
    parts.append(f"<p>Made {escape(made)}.</p>")
    return document(f"clipper app report {report.application}", parts)


def _group(report: Report, group: ReportGroup) -> list[str]:
    known = [model for model in group.models if model.scored]
    compared = [model for model in group.models if model.worse_by is not None]
    name = summary.title(group)
    parts = [f"<h2>{escape(name[:1].upper() + name[1:])}</h2>"]
    parts.append(f"<p><b>{escape(summary.conclusion(report, group))}</b></p>")
    if group.test is not None and group.test.winner is None:
        text = summary.of_test(group.test)
        parts.append(f"<p>{escape(text[:1].upper() + text[1:])}.</p>")
    if (basis := summary.basis(group)) is not None:
        parts.append(f"<p>{escape(basis[:1].upper() + basis[1:])}.</p>")
    if group.problem is not None:
        parts.append(f'<p class="warning">{escape(group.problem)}</p>')
    parts.append(table(summary.COLUMNS, [[cell or "" for cell in row] for row in summary.rows(group)]))
    parts.append(
        whiskers(
            "Mean loss",
            Axis("mean loss"),
            [Whisker(summary.shown(each), each.interval.low, each.interval.high, each.mean_loss) for each in known],
        )
    )
    if compared:
        parts.append(
            whiskers(
                "Worse than the best by",
                Axis("difference of mean losses"),
                [
                    Whisker(summary.shown(each), each.worse_by.low, each.worse_by.high)
                    for each in compared
                    if each.worse_by is not None
                ],
            )
        )
    return parts
