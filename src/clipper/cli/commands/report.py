"""``clipper app report``: compares an application's models."""

from html import escape
from time import localtime, strftime
from typing import Annotated

import typer

from clipper.api.pages import Axis, Whisker, document, paragraph, table, whiskers
from clipper.api.reports import Report, ReportGroup
from clipper.cli.commands import report_summary as summary
from clipper.cli.names import ApplicationName
from clipper.cli.options import HtmlFile, number
from clipper.cli.server import Server


def report(
    server: Server,
    name: ApplicationName,
    confidence: Annotated[
        float | None,
        number(
            float, help="Confidence that a verdict needs, above 0.5, below 1.", show_default="the policy's, or 0.95"
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        number(
            float, help="By how much the mean losses of equal models may differ.", show_default="the policy's, or 0.01"
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="A user, session or other group, to use its feedback alone; all if left out.")
    ] = None,
    by_context: Annotated[
        bool, typer.Option("--by-context", help="Report also on each of the contexts with most feedback.")
    ] = False,
    html: HtmlFile = None,
) -> None:
    """Compare an application's models: which is better, how certain that is, and when it will be known.

    You may run this at any time and as often as you like: its intervals stay valid.
    """
    if context is not None and by_context:
        raise typer.BadParameter("give either --context or --by-context")
    out = server.out
    context = context and summary.read_context(context)
    with out.progress("comparing"):
        found = server.clipper.report(
            name, confidence=confidence, tolerance=tolerance, context=context, by_context=by_context
        )
    if out.as_json:
        out.done(found, "")
    elif summary.has_steps(found):
        out.table(found.steps, summary.STEP_COLUMNS, summary.step_rows(found), "")
    else:
        for group in found.groups:
            out.done(group, f"{summary.title(group)}: {summary.conclusion(found, group)}")
            if group.test is not None and group.test.winner is None:
                out.note(summary.of_test(group.test))
            out.note(summary.basis(group))
            out.warn(group.problem)
            out.table(group, summary.COLUMNS, summary.rows(group), "no models")
    if found.frontier is not None and not out.as_json:
        out.table(found.frontier, summary.FRONTIER_COLUMNS, summary.frontier_rows(found.frontier), "")
        out.note(summary.of_frontier(found.frontier))
    out.note(*summary.notes(found))
    if html is not None:
        out.page(html, as_page(found))


def as_page(report: Report) -> str:
    parts = [f"<h1>The models of {escape(report.application)}</h1>"]
    if summary.has_steps(report):
        parts.append(table(summary.STEP_COLUMNS, [list(row) for row in summary.step_rows(report)]))
    else:
        for group in report.groups:
            parts += _group(report, group)
    if report.frontier is not None:
        parts.append("<h2>Cost and quality</h2>")
        parts.append(table(summary.FRONTIER_COLUMNS, summary.frontier_rows(report.frontier)))
        parts.append(paragraph(summary.of_frontier(report.frontier)))
    made = strftime("%Y-%m-%d %H:%M:%S %Z", localtime(report.time_s))
    parts += map(paragraph, (*summary.notes(report), f"made {made}"))
    return document(f"clipper app report {report.application}", parts)


def _group(report: Report, group: ReportGroup) -> list[str]:
    name = summary.title(group)
    parts = [f"<h2>{escape(name[:1].upper() + name[1:])}</h2>"]
    parts.append(f"<p><b>{escape(summary.conclusion(report, group))}</b></p>")
    if group.test is not None and group.test.winner is None:
        parts.append(paragraph(summary.of_test(group.test)))
    if (basis := summary.basis(group)) is not None:
        parts.append(paragraph(basis))
    if group.problem is not None:
        parts.append(f'<p class="warning">{escape(group.problem)}</p>')
    parts.append(table(summary.COLUMNS, [[cell or "" for cell in row] for row in summary.rows(group)]))
    means = [
        Whisker(summary.shown(each), each.interval.low, each.interval.high, each.mean_loss)
        for each in group.models
        if each.scored
    ]
    parts.append(whiskers("Mean loss", Axis("mean loss"), means))
    differences = [
        Whisker(summary.shown(each), each.worse_by.low, each.worse_by.high)
        for each in group.models
        if each.worse_by is not None
    ]
    if differences:
        parts.append(whiskers("Worse than the best by", Axis("difference of mean losses"), differences))
    return parts
