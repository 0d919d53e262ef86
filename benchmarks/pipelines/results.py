"""What was measured, as a file and as the tables of docs/pipelines-measured.md."""

from pathlib import Path

import msgspec

from benchmarks.harness.pages import fill, lines, table

RESULTS, PLANNED = (Path(__file__).parent / name for name in ("results.json", "planned.json"))
PAGE = Path(__file__).parents[2] / "docs" / "pipelines-measured.md"
# Of what the best fixed split answers; of the second step's work for queries that are then not answered.
LEAST_OF_SPLIT, MOST_IN_VAIN = 0.97, 0.01


class Cell(msgspec.Struct, frozen=True):
    """A shape at a load.

    Attributes:
        models: ``slept`` or ``computed``.
        load: in multiples of what the pipeline can do; ``per_s`` in queries a second.
        in_time: the share of the queries that got an answer of the pipeline within the SLO.
        split: the same with the best fixed split, in simulation; or what the load leaves possible.
        in_vain: the share of the second step's rows whose query got no answer.
        p99_ms: of all answers, defaults too, from when the query was due.
        lag_ms: the load generator's own p99 of noticing that a query is due.
        worker: the share of a processor that the worker took, below models that compute.
    """

    models: str
    shape: str
    load: float
    per_s: float
    slo_ms: int
    in_time: float
    split: float
    in_vain: float
    p99_ms: float | None
    lag_ms: float | None
    worker: float | None = None

    @property
    def of_split(self) -> float:
        return self.in_time / max(self.split, 1e-9)

    @property
    def is_kept(self) -> bool:
        """Whether it is as good as is asked."""
        return (
            self.of_split >= LEAST_OF_SPLIT
            and self.in_vain <= MOST_IN_VAIN
            and self.p99_ms is not None
            and self.p99_ms <= self.slo_ms
        )

    def fields(self) -> list[str]:
        p99 = "-" if self.p99_ms is None else f"{self.p99_ms:.0f} of {self.slo_ms}"
        return [
            self.shape,
            f"{self.load:g}",
            f"{self.per_s:.0f}",
            f"{self.in_time:.3f}",
            f"{self.of_split:.3f}",
            f"{self.in_vain:.1%}",
            p99,
            *([] if self.worker is None else [f"{self.worker:.2f}"]),
        ]

    def line(self) -> str:
        return f"{self.models:9}" + "".join(f"{field:>13}" for field in self.fields()) + ("" if self.is_kept else "  x")


class Planned(msgspec.Struct, frozen=True):
    """The chain with the replicas of ``clipper plan``: the shares in time that it promised, and that there were."""

    per_s: float
    slo_ms: int
    seconds: float
    replicas: dict[str, int]
    promised: float
    in_time: float


def describe_planned() -> str:
    """A sentence, as Markdown."""
    if not PLANNED.exists():
        return "It was not measured."
    found = msgspec.json.decode(PLANNED.read_bytes(), type=Planned)
    replicas = ", ".join(f"{count} of {step}" for step, count in found.replicas.items())
    return (
        f"For {found.per_s:.0f} queries a second within {found.slo_ms} ms the plan was {replicas}. Over "
        f"{found.seconds:.0f} s of bursts {found.in_time:.2%} of the queries were answered in time; its simulation "
        f"said {found.promised:.2%}."
    )


def read() -> list[Cell]:
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Cell]) if RESULTS.exists() else []


def describe(cells: list[Cell], models: str) -> str:
    """A table of one kind of models, as Markdown."""
    head = ["shape", "load", "queries/s", "in time", "of the best split", "second step in vain", "p99, ms"]
    head += ["worker"] if models == "computed" else []
    rows = [cell.fields() for cell in cells if cell.models == models]
    return table(head, rows)


def page_with(page: str, cells: list[Cell]) -> str:
    tables = {models: describe(cells, models) for models in ("slept", "computed")}
    return fill(page, {**tables, "planned": describe_planned()})


def write_results(cells: list[Cell]) -> None:
    RESULTS.write_text(lines(cells))
    PAGE.write_text(page_with(PAGE.read_text(), cells))
