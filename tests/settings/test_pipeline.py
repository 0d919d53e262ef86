"""The steps of a pipeline: read into a graph, and checked against the types of their applications."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import InvalidArgument
from clipper.settings.pipeline import MAX_STEPS, Graph, Step, read_graph
from clipper.settings.pipeline_types import StepType, check_types
from clipper.values.records import parse_type
from tests.example_counts import share_of


def graph(output: Any = None, /, **steps: Step) -> Graph:
    return read_graph("p", steps, output)


def test_steps_are_ordered_by_what_they_need() -> None:
    read = graph(
        "rank", rank=Step(input={"a": "left", "b": "right.vector"}), left=Step(), right=Step(input="query.text")
    )
    assert {node.name for node in read.nodes[:2]} == {"left", "right"}
    assert read.nodes[2].name == "rank"
    assert read.nodes[2].after == {"left", "right"}
    # Without an output, it is that of the step that stands last, which here is not the one that uses all others.
    with pytest.raises(InvalidArgument, match=r"steps.rank: nothing uses its output"):
        graph(left=Step(), rank=Step(input="left"), right=Step())


def test_applications_are_named_after_the_pipeline_by_default() -> None:
    read = graph(a=Step(), b=Step(application="shared", input="a"))
    assert [node.application for node in read.nodes] == ["p.a", "shared"]


@given(
    st.integers(1, MAX_STEPS).flatmap(
        lambda count: st.tuples(
            st.permutations(range(count)),
            st.lists(st.sets(st.integers(0, count - 1)), min_size=count, max_size=count),
        )
    )
)
@settings(max_examples=share_of(200))
def test_every_step_comes_after_all_that_it_needs(
    drawn: tuple[list[int], list[set[int]]],
) -> None:
    order, needs = drawn
    steps = {
        f"s{index}": Step(input={"x": "query", **{f"f{other}": f"s{other}" for other in needs[index] - {index}}})
        for index in order
    }
    try:
        read = read_graph("p", steps, {name: name for name in steps})
    except InvalidArgument as error:
        assert "circle" in str(error)
        names = str(error).rpartition(": ")[2].split(" needs ")
        assert names[0] == names[-1]
        assert len(names) > 2
        assert all(later in str(steps[name].input) for name, later in pairwise(names))
        return
    seen: set[str] = set()
    for node in read.nodes:
        assert node.after <= seen
        seen.add(node.name)
    assert seen == set(steps)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({}, "steps: there are 0: expected 1 to 32"),
        ({"query": Step()}, "steps: 'query' cannot be a step's name"),
        ({"a.b": Step()}, "steps: 'a.b' cannot be a step's name"),
        ({"a": Step(input="nothing")}, "steps.a.input: 'nothing' is not known: expected query"),
        ({"a": Step(input="a")}, "steps.a.input: 'a' is not known"),
        ({"a": Step(input="query.")}, "steps.a.input: 'query.' is not known"),
        ({"a": Step(input={})}, "steps.a.input: expected a value"),
        ({"a": Step(input={"x": "item"})}, "steps.a.input.x: item is an element of for_each"),
        ({"a": Step(when="query")}, "steps.a.when: 'query' is not a comparison"),
        ({"a": Step(when=" " * 1000)}, "is not a comparison"),
        ({"a": Step(when="query.age < 1" + " " * 1000 + "or 2")}, "steps.a.when: it has 1017 characters"),
        ({"a": Step(when="query.age < old")}, "steps.a.when: 'old' is not a constant"),
        ({"a": Step(when="query.age < true")}, "steps.a.when: true is neither more nor less"),
        ({"a": Step(at_most=0)}, "steps.a.at_most is 0"),
        ({"a": Step(input="b"), "b": Step(input="a")}, "circle: a needs b needs a"),
        ({"a": Step(), "b": Step()}, "steps.a: nothing uses its output"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_place(steps: dict[str, Step], message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_graph("p", steps, None)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "found", "holds"),
    [
        ("a < 0.8", 0.5, True),
        ("a < 0.8", 0.8, False),
        ("a<=1", 1, True),
        ("a > -1e3", 0, True),
        ('a == "de"', "de", True),
        ('a != "de"', "en", True),
        ("a == true", True, True),
        ("a == true", 1, False),
        ("a != true", 1, True),
        ("a == null", None, True),
        ("a < 0.8", None, False),
        ("a < 0.8", "text", False),
        ('a >= "b"', "c", True),
        ("a == 3", [3, 4], False),
    ],
)
def test_condition_compares_as_json(text: str, found: Any, holds: bool) -> None:
    condition = graph("b or a", a=Step(), b=Step(when=text)).nodes[1].when
    assert condition is not None
    assert condition.holds(found) is holds


TEXT, VECTOR = (
    StepType(parse_type("string"), parse_type("string")),
    StepType(parse_type("string"), parse_type("float32[3]")),
)


@pytest.mark.parametrize(
    ("query", "read", "types", "message"),
    [
        ("text: string", graph(a=Step(input="query.text")), {"a": TEXT}, None),
        ("string", graph(a=Step(input="query.text")), {"a": TEXT}, "steps.a.input: query is string and has no 'text'"),
        ("text: string", graph(a=Step(input="query.texts")), {"a": TEXT}, "its fields are text"),
        ("float64[3]", graph(a=Step()), {"a": TEXT}, "steps.a.input: it is float64[3]: expected string"),
        (
            "string",
            graph(a=Step(), b=Step(input={"v": "a"})),
            {"a": VECTOR, "b": StepType(parse_type("v: float64[4]"), None)},
            "steps.b.input.v: it is float32[3]: expected float64[4]",
        ),
        (
            "string",
            graph(a=Step(), b=Step(input={"v": "a"})),
            {"a": VECTOR, "b": StepType(parse_type("v: float64[3,1], w: int64?"), None)},
            None,
        ),
        (
            "string",
            graph(a=Step(), b=Step(input={"v": "a"})),
            {"a": VECTOR, "b": StepType(parse_type("v: float64[3], w: int64"), None)},
            "steps.b.input: the fields w are missing",
        ),
        (
            "string",
            graph(a=Step(), b=Step(input={"u": "a"})),
            {"a": VECTOR, "b": StepType(parse_type("v: float64[3]"), None)},
            "the application has no field 'u': its fields are v",
        ),
        ("string", graph("b or a", a=Step(), b=Step(when="a.confidence < 0.5")), {"a": TEXT, "b": TEXT}, None),
        (
            "string",
            graph("b or a", a=Step(), b=Step(when="a < 0.5")),
            {"a": TEXT, "b": TEXT},
            "steps.b.when: a is string, which cannot be compared with 0.5",
        ),
        (
            "string",
            graph(a=Step(), b=Step(input="item", for_each="a")),
            {"a": VECTOR, "b": StepType(parse_type("float64[]"), None)},
            None,
        ),
        (
            "string",
            graph(a=Step(), b=Step(input="item", for_each="a")),
            {"a": VECTOR, "b": StepType(parse_type("float64[2]"), None)},
            "steps.b.input: it is float32[]: expected float64[2]",
        ),
        (
            "string",
            graph(a=Step(), b=Step(for_each="a")),
            {"a": TEXT, "b": TEXT},
            "steps.b.for_each: a is string, which is no list",
        ),
        ("string", graph("a.label", a=Step()), {"a": TEXT}, "output: a is string and has no 'label'"),
        ("string", graph("a.label", a=Step()), {"a": StepType(None, None)}, None),
    ],
)
def test_types_that_never_fit_are_refused_with_the_place(
    query: str, read: Graph, types: dict[str, StepType], message: str | None
) -> None:
    if message is None:
        check_types(read, parse_type(query), types)
        return
    with pytest.raises(InvalidArgument) as refused:
        check_types(read, parse_type(query), types)
    assert message in str(refused.value)
