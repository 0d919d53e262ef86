"""``clipper log``: the decision log."""

from pathlib import Path
from typing import Annotated

import typer

from clipper.cli.options import AsJson, Home, output_file
from clipper.cli.output import Output
from clipper.cli.times import parse_past
from clipper.decisions.export import export as write
from clipper.decisions.joining import joined
from clipper.decisions.reading import LogReader
from clipper.decisions.export import row_of
from clipper.home import DECISIONS_NAME, find_home

commands = typer.Typer(
    no_args_is_help=True, help="The decision log: what was decided for queries, and what came of it."
)

Since = Annotated[
    float | None,
    typer.Option(
        "--since",
        help="Queries from this time on, e.g. 2026-05-01T12:00, or 12h for 12 hours ago.",
        parser=parse_past,
        metavar="TIME",
    ),
]
Until = Annotated[
    float | None, typer.Option("--until", help="Queries before this time.", parser=parse_past, metavar="TIME")
]


def reader_of(home: Path | None, app: str | None, since: float | None, until: float | None) -> LogReader:
    """A reader of a home's log; no server has to run."""
    return LogReader(find_home(home) / DECISIONS_NAME, app, since, until)


def warn_of_gaps(out: Output, reader: LogReader) -> None:
    for name, why in sorted(reader.damaged.items()):
        out.warn(f"{name} is damaged, and the rest of it is left out: {why}")


@commands.command()
def export(
    output: Annotated[
        Path, typer.Option(help="The file to write, NAME.parquet or NAME.jsonl.", readable=False, callback=output_file)
    ],
    app: Annotated[str | None, typer.Option(help="One application; all if left out.")] = None,
    since: Since = None,
    until: Until = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the decisions in a home on this machine to a file, each with the feedback on it."""
    out = Output(as_json)
    reader = reader_of(home, app, since, until)
    with out.progress("reading the decision log"):
        count = write(map(row_of, joined(reader)), output)
    warn_of_gaps(out, reader)
    step = (
        "next: clipper app whatif NAME --policy POLICY" if count else "next: clipper app update NAME --log-decisions 1"
    )
    out.done({"output": str(output), "queries": count}, f"{count:,d} queries are in {output}", step)
