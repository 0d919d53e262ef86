"""``python -m benchmarks.pipelines``: pipelines on a server under load that does not wait, beside the best fixed split.

Each shape is loaded with multiples of what it can do. For models that sleep, that follows from the times for which they
sleep, and the best split of the SLO is searched in simulation, with these times and what a batch of one row takes here
besides: its way to another process and back, and a sleep that ends late. Models that compute share the processors with
all else here, which no simulation of steps knows: what they can do is the most that they answered in time at any of
ever higher rates, and no split answers more than that.
"""

import argparse
import json
import sys
from dataclasses import replace
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
FLOOD_S = 4.0
# A rate of which a smaller share is answered in time is more than models that compute can do.
LEAST_PER_S, ENOUGH = 200.0, 0.9


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
        kept = {(cell.models, cell.shape, cell.load): cell for cell in [*read(), *cells] if cell.load in LOADS}
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
    if shape.steps is None:
        steps: list[Step] = []
        able, good_per_s, rate_per_s = 0.0, LEAST_PER_S, LEAST_PER_S
        while good_per_s >= ENOUGH * rate_per_s:
            rate_per_s *= 1.5
            good_per_s = server.load(application, rate_per_s, FLOOD_S, *options).good / FLOOD_S
            able = max(able, good_per_s)
    else:
        able = capacity_per_s(shape.steps, slo_s)
        server.load(application, 0.25 * able, FLOOD_S, *options)
        steps = [
            replace(step, fixed_s=step.fixed_s + max(0.0, found.batch_s(1) - step.batch_s(1)))
            for step, found in zip(shape.steps, measured_steps(server, application), strict=True)
        ]
        took = ", ".join(f"{step.name} {step.batch_s(1) * 1e3:.2f} ms" for step in steps)
        print(f"{name}: batches of one row take {took}", flush=True)
        server.load(application, 2 * able, FLOOD_S, *options)
    models, rows_each = shape.second
    worker = server.process_ids()[1]
    found = []
    for load in loads:
        server.load(application, able * load, SETTLE_S, *options)
        before, used_ns = rows_of(server, application, models), servers.processor_ns(worker)
        run = server.load(application, able * load, seconds, *options)
        made = rows_of(server, application, models) - before
        used_s = (servers.processor_ns(worker) - used_ns) / 1e9
        split = min(1.0, 1.0 / load)
        if steps:
            split = best_split(steps, slo_s, able * load, seconds)[1].in_time
        found.append(
            Cell(
                models=kind,
                shape=name,
                load=load,
                per_s=run.rate_per_s,
                slo_ms=shape.slo_ms,
                in_time=run.good / max(run.offered, 1),
                split=split,
                in_vain=max(0.0, 1.0 - run.by_model * rows_each / max(made, 1.0)),
                p99_ms=None if run.latency_ms is None else run.latency_ms.p99,
                lag_ms=None if run.sender.lag_ms is None else run.sender.lag_ms.p99,
                worker=None if steps else used_s / run.elapsed_s,
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
