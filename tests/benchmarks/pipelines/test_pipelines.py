"""Clipper's pipelines in virtual time beside the best fixed split, and the page with what a server has reached."""

import random
from statistics import fmean

import pytest

from benchmarks.pipelines.results import LEAST_OF_SPLIT, MOST_IN_VAIN, PAGE, page_with, read
from benchmarks.pipelines.scheduled import ScheduledPipeline, usual
from benchmarks.pipelines.shapes import COMPUTED, SLEPT
from benchmarks.pipelines.split import best_split, capacity_per_s
from clipper.cli.capacity.simulation import WARM_UP_SHARE, arrivals
from clipper.cli.capacity.simulation import Step as TimedStep
from clipper.settings.pipeline import Step, read_graph

SECONDS = 6.0
# The steps before the last one answer more queries than it can. As many are given up after them as before a bound on
# the queries under way has been found, and while it is tried whether it is too low.
LAST_IS_SLOWEST = (
    TimedStep("first", (), 0.002, 0.0001),
    TimedStep("second", (0,), 0.008, 0.0007),
    TimedStep("third", (1,), 0.008, 0.001),
)
SIMULATED = {
    **{
        name: (shape.steps, shape.slo_ms / 1e3, LEAST_OF_SPLIT, MOST_IN_VAIN)
        for name, shape in SLEPT.items()
        if shape.steps is not None
    },
    "last is slowest": (LAST_IS_SLOWEST, 0.2, 0.96, 0.015),
}


@pytest.mark.long
@pytest.mark.parametrize("load", [0.25, 0.5, 0.9, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("name", SIMULATED)
def test_deadlines_are_split_as_well_as_by_search(name: str, load: float) -> None:
    steps, slo_s, least_of_split, most_in_vain = SIMULATED[name]
    per_s = load * capacity_per_s(steps, slo_s)
    _, best = best_split(usual(steps), slo_s, per_s, SECONDS)
    times_s = list(arrivals(per_s, SECONDS, 1.0, random.Random(7)))
    # A run has some hundred rows in vain at most, so three together say more.
    runs = [ScheduledPipeline(steps, slo_s, random.Random(seed)).run(times_s) for seed in (3, 4, 5)]
    assert fmean(run.in_time for run in runs) >= least_of_split * best.in_time
    assert max(run.p99_s for run in runs) <= slo_s
    in_vain = [fmean(shares) for shares in zip(*(run.in_vain for run in runs), strict=True)]
    later = [share for step, share in zip(steps, in_vain, strict=True) if step.needs]
    assert max(later) <= most_in_vain


@pytest.mark.parametrize("stall_s", [0.5, 3.0])
@pytest.mark.parametrize("name", SLEPT)
def test_pipeline_answers_again_soon_after_a_stall(name: str, stall_s: float) -> None:
    """Answers of a stall say that no query can be in time, and keep others from the steps that would show otherwise."""
    shape = SLEPT[name]
    assert shape.steps is not None
    slo_s = shape.slo_ms / 1e3
    times_s = list(arrivals(0.8 * capacity_per_s(shape.steps, slo_s), 12.0, 1.0, random.Random(7)))
    for places in ([0], [1], [len(shape.steps) - 1], range(len(shape.steps))):
        pipeline = ScheduledPipeline(shape.steps, slo_s, random.Random(3))
        pipeline.stalls = dict.fromkeys(places, (3.0, 3.0 + stall_s))
        counted_s = 12.0 * (1 - WARM_UP_SHARE)
        assert pipeline.run(times_s).in_time >= 0.98 * (1 - (slo_s + stall_s + 2.5) / counted_s)


@pytest.mark.parametrize("shapes", [SLEPT, COMPUTED])
def test_shapes_are_pipelines(shapes: dict[str, object]) -> None:
    for name, shape in (SLEPT if shapes is SLEPT else COMPUTED).items():
        graph = read_graph(name, {step: Step(**keys) for step, keys in shape.wiring.items()}, shape.output)
        if shape.steps is not None:
            assert [node.name for node in graph.nodes] == [step.name for step in shape.steps]


def test_page_has_the_results() -> None:
    cells = read()
    assert PAGE.read_text() == page_with(PAGE.read_text(), cells)
    assert {cell.shape for cell in cells} <= set(SLEPT)
