"""Makes the steps of a simulation from what a server has measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from clipper.api.reports import BatchTime, StepModel, StepReport
from clipper.cli.capacity.simulation import MAX_BATCH, Step
from clipper.errors import InvalidArgument
from clipper.settings.pipeline import Graph, Node

# The time of a batch is not extrapolated beyond this many times the largest measured batch.
EXTRAPOLATED = 4
# A query's rows are simulated as this many numbers with the measured mean.
PARTS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """A version of a step: the step for the simulation, and the readings behind it.

    Attributes:
        processors: those of a replica; 1 if it may use any.
        is_one_size: whether all of its batches had one size, so that the gain from batching is unknown.
    """

    step: Step
    name: str
    model: StepModel
    processors: float
    is_one_size: bool


def measured(graph: Graph | None, steps: Sequence[StepReport]) -> list[Measured]:
    """Return the simulated step of each version of each step, in the order of the steps.

    Raises InvalidArgument if the server has measured too little. ``graph``: the steps and what they need; None for an
    application without steps.
    """
    queries = _queries(graph, steps)
    found: list[Measured] = []
    nodes: Mapping[str, Node] = {} if graph is None else {node.name: node for node in graph.nodes}
    places: dict[str, tuple[int, ...]] = {}
    # Maps each value that conditions compare to the share of queries for which one of its conditions held.
    shares: dict[object, float] = {}
    certain: set[str] = set()
    for report in steps:
        node = nodes.get(report.step)
        needs = tuple(sorted({place for name in (node.after if node else ()) for place in places.get(name, ())}))
        # A query that was given up before a step that every query asks would have asked it, given enough capacity.
        if node is None or (node.when is None and node.for_each is None and node.after <= certain):
            certain.add(report.step)
        asked_by = report.queries if report.step in certain else queries
        rows = [model.asked * model.evaluated / max(asked_by, 1) for model in report.models]
        choice = (node.when.value if node and node.when else report.step,)
        first = shares.get(choice, 0.0)
        own: list[int] = []
        for model, each in zip(report.models, rows, strict=True):
            if not each:
                continue
            if not model.batches:
                raise InvalidArgument(
                    f"{model.model}:{model.version} has answered no batch since the workers started, so its times are "
                    "not known: send queries first, e.g. with clipper load"
                )
            first = 0.0 if first + each > 1.0 + 1e-6 else first
            fixed_s, row_s = line(model.batches)
            name = report.step if sum(map(bool, rows)) == 1 else f"{report.step}/{model.model}"
            step = Step(
                name,
                needs,
                fixed_s,
                row_s,
                asked=(first, min(1.0, first + each)) if each < 1.0 else (0.0, 1.0),
                rows=(1,) if each <= 1.0 else tuple(floor(each + part / PARTS) for part in range(PARTS)),
                largest=min(MAX_BATCH, EXTRAPOLATED * max(model.batches)),
            )
            own.append(len(found))
            found.append(Measured(step, name, model, model.cpus or 1.0, len(model.batches) < 2))
            first += each
        shares[choice] = first
        places[report.step] = tuple(own) or needs
    if not found:
        raise InvalidArgument(
            "no replica has evaluated a query of this application since the workers started, so its models' times "
            "are not known: send queries that are not cached first, e.g. with clipper load"
        )
    return found


def _queries(graph: Graph | None, steps: Sequence[StepReport]) -> int:
    """Return how many queries the application got, by a step that each of them asks, or else by the busiest."""
    whole = {node.name for node in graph.nodes if node.when is None and node.for_each is None} if graph else set()
    return max((step.queries for step in steps if not whole or step.step in whole), default=0) or 1


def line(batches: Mapping[int, BatchTime]) -> tuple[float, float]:
    """Return the time of a batch and of each of its rows, in seconds, by least squares over all rows.

    A batch counts by its rows: under load nearly all rows are in large batches, and the delays of many small batches
    must not make large ones look quick. If all have the same size, the time is divided evenly among its rows: batching
    may be better than that.
    """
    rows = sum(size * each.count for size, each in batches.items())
    if not rows:
        return 0.0, 0.0
    mean_size = sum(size * size * each.count for size, each in batches.items()) / rows
    mean_s = sum(size * each.count * each.mean_ms for size, each in batches.items()) / rows / 1000
    spread = sum(size * each.count * (size - mean_size) ** 2 for size, each in batches.items())
    if not spread:
        return 0.0, mean_s / mean_size
    together = sum(
        size * each.count * (size - mean_size) * (each.mean_ms / 1000 - mean_s) for size, each in batches.items()
    )
    row_s = min(max(together / spread, 0.0), mean_s / mean_size)
    return mean_s - row_s * mean_size, row_s
