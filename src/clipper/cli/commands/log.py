"""``clipper log``: the decision log."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any

import msgspec
import typer

from clipper.cli.options import AsJson, Home, PolicyParameters, output_file, parse_parameters, parse_past
from clipper.cli.output import Output
from clipper.cli.server import Commands
from clipper.learning.decisions.joining import joined
from clipper.learning.decisions.reading import LogReader
from clipper.settings.home import DECISIONS_NAME, find_home

commands = Commands("The decision log: the decisions on queries, and their feedback.")

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
    """Return a reader of a home's log; no server has to run."""
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
    with_inputs: Annotated[
        bool,
        typer.Option("--with-inputs", help="A training set: the queries of --app whose inputs were kept, with these."),
    ] = False,
    since: Since = None,
    until: Until = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the decisions in a home on this machine to a file, each with the feedback on it."""
    # Imported here: it needs numpy, which takes longer to load than most commands run.
    from clipper.learning.decisions.export import Row, row_of, training_rows
    from clipper.learning.decisions.export import export as write

    if with_inputs and app is None:
        raise typer.BadParameter("--with-inputs needs --app: each application's inputs have a type of their own")
    out = Output(as_json)
    reader = reader_of(home, app, since, until)
    left_out = 0

    def kept() -> Iterator[Row]:
        nonlocal left_out
        for row in training_rows(joined(reader)):
            if row is None:
                left_out += 1
            else:
                yield row

    with out.progress("reading the decision log"):
        if with_inputs:
            count = write(kept(), output, reader.input_types())
        else:
            count = write(map(row_of, joined(reader)), output)
    warn_of_gaps(out, reader)
    if left_out:
        out.note(f"left out, {left_out:,d}: their inputs were not kept, or were too large")
    step = "next: clipper app whatif NAME --policy POLICY"
    if not count:
        step = f"next: clipper app update NAME --log-decisions 1{' --log-inputs sampled' if with_inputs else ''}"
    out.done({"output": str(output), "queries": count}, f"{count:,d} queries are in {output}", step)


_COLUMNS = ("what", "IPS", "SNIPS", "DR", "effective queries")
# A fixed seed, so that the same log gives the same answer.
_SEED = 1


def whatif(
    name: Annotated[str, typer.Argument(help="The application's name.")],
    policy: Annotated[
        str | None,
        typer.Option(help="A policy, which learns from the log's feedback in order; if left out, each model alone."),
    ] = None,
    policy_parameter: PolicyParameters = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that the policy chooses among, or that answers all queries; default all. May be repeated."
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Estimate from the decision log the mean loss of another policy, or of one model for all queries."""
    from clipper.learning.decisions.evaluation.whatif import ask

    if policy_parameter and policy is None:
        raise typer.BadParameter("--policy-parameter goes with --policy")
    out = Output(as_json)
    reader = reader_of(home, name, since, until)
    with out.progress("reading the decision log"):
        report = ask(joined(reader), policy, parse_parameters(policy_parameter), model or (), Random(_SEED))
    warn_of_gaps(out, reader)
    rows: list[tuple[object, ...]] = [("as it was", None, _text(report.as_it_was), None, f"{report.queries:,d}")]
    for answer in report.answers:
        estimates = map(_text, (answer.ips, answer.snips, answer.dr))
        rows.append((answer.target, *estimates, f"{answer.effective_queries:,.0f}"))
    out.table({"application": name, **msgspec.to_builtins(report)}, _COLUMNS, rows, "")
    out.note(f"mean losses with 95 % intervals, from {report.queries:,d} queries with feedback")
    for reason, count in report.left_out.items():
        out.note(f"left out, {count:,d}: {reason}")
    for answer in report.answers:
        for warning in answer.warnings:
            out.warn(f"{answer.target}: {warning}")


def _text(estimate: Any) -> str | None:
    return None if estimate is None else f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
