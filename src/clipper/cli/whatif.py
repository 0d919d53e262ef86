"""``clipper app whatif``: estimates from the decision log what another policy would have lost."""

from random import Random
from typing import Annotated, Any

import msgspec
import typer

from clipper.cli.log import Since, Until, reader_of, warn_of_gaps
from clipper.cli.options import AsJson, Home, PolicyParameters, parse_parameters
from clipper.cli.output import Output
from clipper.decisions.joining import joined

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
    from clipper.decisions.evaluation.whatif import ask

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
