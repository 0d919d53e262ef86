"""``clipper app report``: compares an application's models."""

from pathlib import Path
from typing import Annotated

import typer

from clipper.cli import report_summary as summary
from clipper.cli.names import ApplicationName
from clipper.cli.options import AsJson, Home, Url, number, output_file
from clipper.cli.output import Output
from clipper.cli.report_page import as_page
from clipper.client import Clipper


def report(
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
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write a page with charts to this file.", readable=False, callback=output_file, metavar="FILE"
        ),
    ] = None,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Compare an application's models: which is better, how sure that is, and when it will be known.

    You may run this at any time and as often as you like: its intervals stay valid.
    """
    if context is not None and by_context:
        raise typer.BadParameter("give either --context or --by-context")
    out = Output(as_json)
    with Clipper.connect(url, home) as clipper, out.progress("comparing"):
        found = clipper.report(name, confidence=confidence, tolerance=tolerance, context=context, by_context=by_context)
    if html is not None:
        try:
            html.write_text(as_page(found), "utf-8")
        except OSError as error:
            raise typer.BadParameter(f"{html} cannot be written: {error.strerror}", param_hint="--html") from error
    if as_json:
        out.done(found, "")
        return
    for group in found.groups:
        out.done(group, f"{summary.title(group)}: {summary.conclusion(found, group)}")
        if group.test is not None and group.test.winner is None:
            out.note(summary.of_test(group.test))
        if (basis := summary.basis(group)) is not None:
            out.note(basis)
        if group.problem is not None:
            out.warn(group.problem)
        out.table(group, summary.COLUMNS, summary.rows(group), "no models")
    for note in summary.notes(found):
        out.note(note)
    if html is not None:
        out.note(f"written to {html}")
