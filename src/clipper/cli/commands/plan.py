"""``clipper plan``: how many replicas a load needs."""

from typing import Annotated

import typer
from msgspec import Struct

from clipper.cli.capacity.measured import Measured, measured
from clipper.cli.capacity.search import Plan, Planner
from clipper.cli.names import ApplicationName
from clipper.cli.options import number
from clipper.cli.server import Server
from clipper.errors import InvalidArgument
from clipper.settings.application import MAX_SLO_MS
from clipper.settings.pipeline import read_graph

# No server answers more, and no cluster of servers has more processors.
MAX_PER_S, MAX_CORES = 1_000_000, 100_000
# A query in a quarter of an hour: any server keeps that.
MIN_PER_S = 0.001
_COLUMNS = ("step", "model", "a batch takes", "rows a query", "replicas now", "needed", "busy")


class PlannedStep(Struct, frozen=True):
    """A version of a step, as ``--json`` prints it."""

    step: str
    model: str
    version: str
    batch_ms: float
    row_ms: float
    rows_per_query: float
    replicas_now: int
    replicas: int
    busy: float


class PlanResult(Struct, frozen=True):
    """A plan, as ``--json`` prints it: ``limit`` names the step that limits, above ``breaks_per_s``."""

    application: str
    rate_per_s: float
    slo_ms: float
    is_kept: bool
    in_time: float
    p99_ms: float
    cores: float
    limit: str
    breaks_per_s: float
    steps: tuple[PlannedStep, ...]


def plan(
    server: Server,
    name: ApplicationName,
    rate: Annotated[float, number(float, help="Queries a second.", least=MIN_PER_S, most=MAX_PER_S)],
    slo_ms: Annotated[
        float | None,
        number(
            float,
            help="Latency objective, in milliseconds.",
            least=0,
            above=True,
            most=MAX_SLO_MS,
            show_default="the application's",
        ),
    ] = None,
    cores: Annotated[
        float | None,
        number(
            float,
            help="The most processors that all replicas may use.",
            least=0,
            above=True,
            most=MAX_CORES,
            show_default="no bound",
        ),
    ] = None,
) -> None:
    """Say how many replicas of each step keep the SLO at a rate, at the least cost, and what limits.

    Batches that the server has answered tell how long each model takes; queries that come in bursts are simulated. It
    changes nothing. The exit status is 1 if no plan keeps the SLO.
    """
    out = server.out
    application = server.clipper.application(name)
    graph = read_graph(name, application.steps, application.output) if application.steps else None
    report = server.clipper.report(name)
    if not report.steps:
        raise InvalidArgument("this server is older than clipper plan: restart it with this version")
    steps, slo_ms = measured(graph, report.steps), slo_ms or report.slo_ms
    processors = [each.processors for each in steps]
    if cores is not None and cores < sum(processors):
        raise InvalidArgument(
            f"--cores {cores:g} is less than one replica of each step uses, which is {sum(processors):g}"
        )
    with out.progress("simulating"):
        found = Planner([each.step for each in steps], slo_ms / 1000, processors).cheapest(rate, cores)
    result = _result(name, rate, slo_ms, steps, found)
    out.table(result, _COLUMNS, [_row(each) for each in result.steps], "")
    out.note(*_notes(result, cores))
    for each in steps:
        if each.is_one_size:
            out.warn(
                f"{each.name}: only batches of one size were measured, so batching is taken to gain nothing: load it "
                "more, e.g. with clipper load"
            )
    if not result.is_kept:
        raise typer.Exit(1)


def _result(name: str, rate: float, slo_ms: float, steps: list[Measured], found: Plan) -> PlanResult:
    return PlanResult(
        application=name,
        rate_per_s=rate,
        slo_ms=slo_ms,
        is_kept=found.is_kept,
        in_time=found.outcome.in_time,
        p99_ms=1000 * found.outcome.p99_s,
        cores=found.cost,
        limit=steps[found.limit].name,
        breaks_per_s=found.breaks_per_s,
        steps=tuple(
            PlannedStep(
                each.name,
                each.model.model,
                each.model.version,
                1000 * each.step.fixed_s,
                1000 * each.step.row_s,
                each.step.rows_per_query,
                each.model.replicas,
                replicas,
                busy,
            )
            for each, replicas, busy in zip(steps, found.replicas, found.outcome.busy, strict=True)
        ),
    )


def _row(step: PlannedStep) -> tuple[str, ...]:
    return (
        step.step,
        f"{step.model}:{step.version}",
        f"{step.batch_ms:.3g} ms + {step.row_ms:.3g} ms a row",
        f"{step.rows_per_query:.3g}",
        str(step.replicas_now),
        str(step.replicas),
        f"{step.busy:.0%}",
    )


def _notes(result: PlanResult, cores: float | None) -> list[str]:
    within = "" if cores is None else f" within {cores:g} cores"
    if not result.is_kept:
        least = f"up to {result.breaks_per_s:.3g}/s" if result.breaks_per_s else "at no rate"
        return [
            f"no plan{within} keeps {result.slo_ms:g} ms at {result.rate_per_s:g}/s: with the best one, "
            f"{result.in_time:.1%} of the queries are answered in time; it keeps the SLO {least}",
            f"{result.limit} limits it",
        ]
    scale = [
        f"clipper model scale {step.model} {step.replicas}"
        for step in result.steps
        if step.replicas != step.replicas_now
    ]
    return [
        f"{result.in_time:.1%} of {result.rate_per_s:g}/s are answered within {result.slo_ms:g} ms, p99 "
        f"{result.p99_ms:.0f} ms, with {result.cores:g} cores",
        f"above {result.breaks_per_s:.3g}/s the SLO breaks; {result.limit} limits it",
        *([f"next: {'; '.join(scale)}"] if scale else []),
    ]
