"""One query on its way through a pipeline: which steps are asked, with what, and how it ends."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.settings.pipeline import Step, read_graph
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.as_inputs import MAX_LIST_BYTES, list_of
from clipper.values.outputs.output import PIECE_BYTES, Output, RecordOutput, TypedOutput, make_array, make_record
from clipper.values.outputs.record_columns import names_of
from clipper.values.types import DType
from clipper.worker.selection.pipeline.run import Ask, Done, Failed, Join, Plan, Run, Skip
from tests.example_counts import share_of
from tests.worker.frontend.steps import finish


def run_of(output: Any = None, /, *, query: Any = "q", **steps: Step) -> tuple[Plan, Run]:
    plan = Plan(read_graph("p", steps, output))
    return plan, Run(plan, lambda: json.dumps(query).encode())


def next_of(run: Run) -> Any:
    """The next decision but to join answers, which is done."""
    while isinstance(decision := run.next(), Join):
        try:
            run.joined(decision.place, finish(list_of(decision.answers)))
        except ModelFailed as error:
            run.failed(decision.place, error.code, str(error))
    return decision


def array(*values: float) -> TypedOutput:
    return make_array(OutputForm(DType.FLOAT64, (len(values),), DType.FLOAT64), json_floats(values))


def json_floats(values: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def shown(decision: Any) -> Any:
    """A decision with its outputs as JSON, to compare."""
    if isinstance(decision, Ask):
        return decision.place, [None if each is None else json.loads(bytes(each)) for each in decision.inputs]
    return json.loads(bytes(decision.output)) if isinstance(decision, Done) else decision


def test_steps_are_asked_once_they_have_what_they_need() -> None:
    plan, run = run_of(
        {"a": "rank", "b": "left"}, left=Step(), right=Step(), rank=Step(input={"x": "left", "y": "right.z"})
    )
    assert [shown(next_of(run)), shown(next_of(run)), next_of(run)] == [(0, [None]), (1, [None]), None]
    run.answered(0, 0, b"1", 0.5)
    assert next_of(run) is None
    run.answered(1, 0, make_record(names_of(("z", "w")), (array(1.0, 2.0), b'"t"')), 1.0)
    assert shown(next_of(run)) == (2, [{"x": 1, "y": [1.0, 2.0]}])
    run.answered(plan.places["rank"], 0, b'"end"', 1.0)
    assert shown(next_of(run)) == {"a": "end", "b": 1}
    assert next_of(run) is None


@given(st.data())
@settings(max_examples=share_of(300), deadline=None)
def test_every_run_ends_once_and_keeps_the_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 7))
    steps = {}
    for place in range(count):
        before = [f"s{other}" for other in range(place)]
        needs = data.draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        when = data.draw(st.sampled_from([None, f"{needs[0]} > 3"])) if needs else None
        for_each = data.draw(st.sampled_from([None, *needs]))
        wired: Any = {name: name for name in needs} or "query"
        steps[f"s{place}"] = Step(input="item" if for_each else wired, when=when, for_each=for_each, at_most=3)
    try:
        graph = read_graph("p", steps, {name: name for name in steps})
    except ValueError:
        return
    plan = Plan(graph)
    run = Run(plan, lambda: b'"q"')
    asked: dict[tuple[int, int], None] = {}
    settled: set[str] = set()
    missing: dict[int, int] = {}
    ends = []
    for _ in range(1000):
        while (decision := next_of(run)) is not None:
            if isinstance(decision, Done | Failed):
                ends.append(decision)
                continue
            node = plan.nodes[decision.place]
            # A list without elements settles its step without a decision.
            empty: set[str] = set()
            for other in plan.nodes:
                if other.for_each and plan.places[other.name] not in missing and other.after <= settled | empty:
                    empty.add(other.name)
            assert node.after <= settled | empty
            assert node.name not in settled
            if isinstance(decision, Skip):
                run.skipped(decision.place, data.draw(st.sampled_from([None, b"7", b"null"])))
                settled.add(node.name)
                continue
            missing[decision.place] = len(decision.inputs)
            asked |= dict.fromkeys((decision.place, index) for index in range(len(decision.inputs)))
            assert 1 <= len(decision.inputs) <= node.at_most
        if not asked or ends:
            break
        (place, index), *_ = data.draw(st.permutations(list(asked)))
        del asked[place, index]
        if data.draw(st.integers(0, 20)) == 0:
            run.failed(place, "timeout", "late")
            continue
        output: Output = data.draw(st.sampled_from([b"1", b"5", b"null", b"[]", b"[1,2]", b"[1,2,3,4]", array(4.0)]))
        run.answered(place, index, output, 0.5, "m:1")
        missing[place] -= 1
        if not missing[place]:
            settled.add(plan.nodes[place].name)
    assert len(ends) == 1
    assert next_of(run) is None
    if isinstance(ends[0], Done):
        assert set(json.loads(bytes(ends[0].output))) == set(steps)
    else:
        assert ends[0].message.startswith(("step s", "output: "))


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (b"[1,2,3]", (1, [1, 2, 3])),
        (b'[{"x":1}]', (1, [{"x": 1}])),
        (array(1.0, 2.0), (1, [1.0, 2.0])),
        (b"[]", []),
        (array(), []),
        (b"null", Skip(1)),
        (b"[1,2,3,4]", Failed("model_error", "step each: all has 4 elements: expected at most 3 (at_most)")),
        (array(1, 2, 3, 4), Failed("model_error", "step each: all has 4 elements: expected at most 3 (at_most)")),
        (b'"text"', Failed("model_error", "step each: all is no list: for_each needs an array, or a list as JSON")),
    ],
)
def test_list_makes_a_row_of_each_element(found: Output, decision: Any) -> None:
    _, run = run_of(all=Step(), each=Step(for_each="all", input="item", at_most=3))
    next_of(run)
    run.answered(0, 0, found, 1.0)
    assert shown(next_of(run)) == decision


def test_answers_of_a_list_keep_its_order() -> None:
    _, run = run_of({"e": "each", "c": "each.confidence"}, all=Step(), each=Step(for_each="all", input="item"))
    next_of(run)
    run.answered(0, 0, b"[1,2,3]", 1.0)
    next_of(run)
    for index in (2, 0, 1):
        assert next_of(run) is None
        run.answered(1, index, array(float(index)), 0.5 + index / 10, f"m:{index}")
    done = next_of(run)
    assert shown(done) == {"e": [[0.0], [1.0], [2.0]], "c": 0.5}
    assert list(run.sources) == ["m:2", "m:0", "m:1"]


def test_missing_values_give_way_to_alternatives() -> None:
    _, run = run_of("dear or cheap", cheap=Step(), dear=Step(when="cheap.confidence < 0.8"))
    next_of(run)
    run.answered(0, 0, b'"c"', 0.9)
    assert next_of(run) == Skip(1)
    run.skipped(1, None)
    assert shown(next_of(run)) == "c"

    _, run = run_of("b", a=Step(when="query == 1"), b=Step(input="a"), query=2)
    assert next_of(run) == Skip(0)
    run.skipped(0, None)
    assert next_of(run) == Skip(1)
    run.skipped(1, b"null")
    assert shown(next_of(run)) is None


def test_confidence_is_the_answers_unless_the_output_has_one() -> None:
    for output, expected in ((b'{"confidence":0.25}', 0.25), (b'{"other":1}', 0.75), (b"1", 0.75)):
        _, run = run_of("a.confidence", a=Step())
        next_of(run)
        run.answered(0, 0, output, 0.75)
        assert shown(next_of(run)) == expected


def test_first_failure_ends_the_run_and_names_its_step() -> None:
    _, run = run_of({"a": "a", "b": "b"}, a=Step(), b=Step())
    next_of(run), next_of(run)
    run.failed(1, "timeout", "it is late")
    run.failed(0, "model_error", "it raised")
    assert next_of(run) == Failed("timeout", "step b: it is late")
    run.answered(0, 0, b"1", 1.0)
    assert next_of(run) is None


def test_long_lists_are_neither_cut_nor_joined_at_once() -> None:
    """Either held the loop for some 20 ms with an array of 32 MB."""
    _, run = run_of({"e": "each"}, all=Step(), each=Step(for_each="all", input={"x": "item"}, at_most=100))
    run.next()
    rows = np.arange(100 * 20_000, dtype="<f8").reshape(100, 20_000)
    run.answered(0, 0, make_array(OutputForm(DType.FLOAT64, rows.shape, DType.FLOAT64), rows.tobytes()), 1.0)
    asked = run.next()
    assert isinstance(asked, Ask) and asked.is_long and len(asked.inputs) == 100
    for index, each in enumerate(asked.inputs):
        assert each is not None
        run.answered(
            1, index, make_array(OutputForm(DType.FLOAT64, (20_000,), DType.FLOAT64), rows[index].tobytes()), 1
        )
    join = run.next()
    assert isinstance(join, Join) and run.next() is None
    steps, joining = 0, list_of(join.answers)
    try:
        while True:
            next(joining)
            steps += 1
    except StopIteration as end:
        run.joined(join.place, end.value)
    assert steps == rows.nbytes // PIECE_BYTES
    done = run.next()
    assert isinstance(done, Done) and isinstance(done.output, RecordOutput)
    (part,) = done.output.parts
    assert isinstance(part, TypedOutput) and part.form.shape == rows.shape and part.data == rows.tobytes()


def test_no_more_is_held_for_a_list_than_it_may_have() -> None:
    _, run = run_of({"e": "each"}, all=Step(), each=Step(for_each="all", input={"x": "item"}, at_most=100))
    run.next()
    run.answered(0, 0, array(*range(100)), 1.0)
    assert isinstance(run.next(), Ask)
    size = MAX_LIST_BYTES // 4
    large = make_array(OutputForm(DType.FLOAT64, (size // 8,), DType.FLOAT64), bytes(size))
    for index in range(4):
        run.answered(1, index, large, 1.0)
        assert run.next() is None
    run.answered(1, 4, large, 1.0)
    failed = run.next()
    assert isinstance(failed, Failed) and failed.code == "output_too_large" and failed.message.startswith("step each: ")


def test_steps_that_every_query_asks_are_known() -> None:
    plan, _ = run_of(
        {"a": "a", "b": "b", "c": "c", "d": "d"},
        a=Step(),
        b=Step(when="a > 1"),
        c=Step(input="b"),
        d=Step(input={"x": "b or a", "y": "a"}),
    )
    assert plan.certain == {plan.places["a"], plan.places["d"]}
