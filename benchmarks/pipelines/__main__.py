"""``python -m benchmarks.pipelines``: pipelines on a server under load that does not wait, beside the best fixed split.

Each shape is loaded with multiples of what it can do: by the times for which its models sleep, or by those of batches
that the server has measured under too much load. With these times the best split of the SLO is searched in simulation.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.harness import servers
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.pipelines.results import Cell, read, write_results
from benchmarks.pipelines.shapes import COMPUTED, SLEPT, Shape
from benchmarks.pipelines.split import best_split, capacity_per_s
from clipper.api.reports import Report
from clipper.api.schemas import Application
from clipper.cli.capacity.measured import measured
from clipper.cli.capacity.simulation import Step
from clipper.settings.pipeline import read_graph

LOADS = (0.25, 0.5, 0.9, 1.0, 1.5, 2.0)
# The first seconds of each load are not counted: what the server knows is of the load before.
SETTLE_S = 2.0
# More than any of the models that compute can do, on any machine that runs this.
FLOOD_PER_S, FLOOD_S = 3000.0, 4.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipelines", description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SLEPT), choices=list(SLEPT))
    parser.add_argument("--models", nargs="+", choices=["slept", "computed"], default=["slept", "computed"])
    parser.add_argument("--loads", nargs="+", type=float, default=LOADS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--save", action="store_true", help="write results.json and the page")
    arguments = parser.parse_args()
    end_in_order_at_sigterm()
    cells: list[Cell] = []
    with servers.clipper() as server, TemporaryDirectory(prefix="clipper-pipelines-") as folder:
        for kind, shapes in (("slept", SLEPT), ("computed", COMPUTED)):
            for name in arguments.shapes if kind in arguments.models else ():
                place = Path(folder) / f"{kind}-{name}"
                place.mkdir()
                for cell in measure(server, kind, name, shapes[name], place, arguments.loads, arguments.seconds):
                    print(cell.line(), flush=True)
                    cells.append(cell)
    if arguments.save:
        kept = {(cell.models, cell.shape, cell.load): cell for cell in [*read(), *cells]}
        write_results(list(kept.values()))
    return 0 if all(cell.is_kept for cell in cells) else 1


def measure(
    server: servers.ClipperServer,
    kind: str,
    name: str,
    shape: Shape,
    folder: Path,
    loads: tuple[float, ...],
    seconds: float,
) -> list[Cell]:
    application = f"{kind}-{name}"
    manifest = shape.manifest(application, folder)
    path = folder / "clipper.yaml"
    path.write_text(json.dumps(manifest))
    server.run("apply", str(path))
    options = [] if shape.bodies is None else ["--inputs", str(shape.bodies(folder))]
    slo_s = shape.slo_ms / 1e3
    flood_per_s = FLOOD_PER_S if shape.steps is None else 2 * capacity_per_s(shape.steps, slo_s)
    server.load(application, flood_per_s, FLOOD_S, *options)
    able = capacity_per_s(shape.steps or measured_steps(server, application), slo_s)
    models, rows_each = shape.second
    found = []
    for load in loads:
        server.load(application, able * load, SETTLE_S, *options)
        before = rows_of(server, application, models)
        run = server.load(application, able * load, seconds, *options)
        made = rows_of(server, application, models) - before
        _, best = best_split(shape.steps or measured_steps(server, application), slo_s, able * load, seconds)
        found.append(
            Cell(
                models=kind,
                shape=name,
                load=load,
                per_s=run.rate_per_s,
                slo_ms=shape.slo_ms,
                in_time=run.good / max(run.offered, 1),
                split=best.in_time,
                in_vain=max(0.0, 1.0 - run.by_model * rows_each / max(made, 1.0)),
                p99_ms=None if run.latency_ms is None else run.latency_ms.p99,
                lag_ms=None if run.sender.lag_ms is None else run.sender.lag_ms.p99,
            )
        )
    server.run("app", "delete", application, "--yes")
    for step in shape.wiring:
        server.run("app", "delete", f"{application}.{step}", "--yes")
        server.run("model", "delete", f"{application}-{step}")
    return found


def measured_steps(server: servers.ClipperServer, application: str) -> list[Step]:
    """Return the steps with the times that their replicas were measured to take on this machine."""
    shown = msgspec.convert(server.run("app", "show", application), Application, str_keys=True)
    report = msgspec.convert(server.run("app", "report", application), Report, str_keys=True)
    graph = read_graph(application, shown.steps, shown.output)
    return [each.step for each in measured(graph, report.steps)]


def rows_of(server: servers.ClipperServer, application: str, models: tuple[str, ...]) -> float:
    metrics = server.metrics()
    return sum(metrics.total("clipper_batch_size_sum", model=f"{application}-{model}") for model in models)


if __name__ == "__main__":
    sys.exit(main())
