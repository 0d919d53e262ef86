"""Steps of a simulation, made from reports."""

import pytest

from clipper.api.reports import BatchTime, StepModel, StepReport
from clipper.cli.capacity.measured import EXTRAPOLATED, line, measured
from clipper.errors import InvalidArgument
from clipper.settings.pipeline import Step, read_graph

BATCHES = {1: BatchTime(10, 3.0), 4: BatchTime(10, 6.0)}


def report(step: str, queries: int, *models: tuple[str, int, float]) -> StepReport:
    made = tuple(StepModel(name, "1", asked, share, 1, None, False, BATCHES) for name, asked, share in models)
    return StepReport(step, f"app.{step}", queries, {}, {}, None, made)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ({1: (10, 3.0), 4: (10, 6.0)}, (0.002, 0.001)),
        ({8: (5, 4.0)}, (0.0, 0.0005)),
        ({}, (0.0, 0.0)),
        # Larger batches that took less: nothing is gained by small ones, and a row costs nothing.
        ({1: (10, 5.0), 2: (10, 4.0)}, (0.13 / 30, 0.0)),
        # A line that would begin below zero begins at it.
        ({1: (1, 0.1), 10: (1, 10.0)}, (0.0, 0.1001 / 101)),
        # Many small batches that were delayed hardly change what a large one is taken to last.
        ({1: (100, 8.0), 40: (50, 84.0), 80: (10, 164.0)}, (0.00448616314, 0.00199160393)),
    ],
)
def test_line_through_batches(batches: dict[int, tuple[int, float]], expected: tuple[float, float]) -> None:
    found = line({size: BatchTime(*each) for size, each in batches.items()})
    assert found == pytest.approx(expected)


def test_steps_get_the_rows_that_replicas_evaluated() -> None:
    graph = read_graph(
        "app",
        {
            "language": Step(),
            "de": Step(when='language == "de"'),
            "fr": Step(when='language == "fr"'),
            "words": Step(for_each="de or fr", input="item"),
        },
        "words",
    )
    found = measured(
        graph,
        [
            report("language", 1000, ("lang", 1000, 1.0)),
            report("de", 300, ("de", 300, 1.0)),
            report("fr", 700, ("fr-small", 500, 0.5), ("fr-large", 200, 1.0)),
            report("words", 2500, ("words", 2500, 1.0)),
        ],
    )
    steps = [each.step for each in found]
    assert [step.name for step in steps] == ["language", "de", "fr/fr-small", "fr/fr-large", "words"]
    assert [step.needs for step in steps] == [(), (0,), (0,), (0,), (1, 2, 3)]
    assert [step.rows_per_query for step in steps] == pytest.approx([1.0, 0.3, 0.25, 0.2, 2.5])
    # Of exclusive conditions, no query fulfils two.
    assert [end for step in steps[1:4] for end in step.asked] == pytest.approx([0.0, 0.3, 0.3, 0.55, 0.55, 0.75])
    assert steps[0].largest == EXTRAPOLATED * 4
    assert not found[0].is_one_size


def test_ensemble_asks_all_of_its_models_for_each_query() -> None:
    found = measured(None, [report("app", 100, ("a", 100, 1.0), ("b", 100, 0.5))])
    assert [each.step.name for each in found] == ["app/a", "app/b"]
    assert [each.step.asked for each in found] == [(0.0, 1.0), (0.0, 0.5)]
    assert [each.step.needs for each in found] == [(), ()]


def test_step_that_is_always_cached_is_passed_by() -> None:
    graph = read_graph("app", {"a": Step(), "b": Step(input="a"), "c": Step(input="b")}, "c")
    found = measured(
        graph, [report("a", 10, ("a", 10, 1.0)), report("b", 10, ("b", 10, 0.0)), report("c", 10, ("c", 10, 1.0))]
    )
    assert [(each.step.name, each.step.needs) for each in found] == [("a", ()), ("c", (0,))]


def test_nothing_measured_is_said() -> None:
    with pytest.raises(InvalidArgument, match="clipper load"):
        measured(None, [report("app", 0, ("a", 0, 1.0))])


def test_version_without_a_batch_is_named() -> None:
    unknown = StepModel("new", "2", 10, 1.0, 1, None, False, {})
    with pytest.raises(InvalidArgument, match="new:2 has answered no batch"):
        measured(None, [StepReport("app", "app", 10, {}, {}, None, (unknown,))])


def test_queries_that_were_given_up_before_a_step_count_as_asking_it() -> None:
    graph = read_graph("app", {"a": Step(), "b": Step(input="a")}, "b")
    found = measured(graph, [report("a", 1000, ("a", 1000, 1.0)), report("b", 600, ("b", 600, 1.0))])
    assert [each.step.rows_per_query for each in found] == [1.0, 1.0]
