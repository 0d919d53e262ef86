"""The modules of the pages compute rightly: they are called in the browser that runs them."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from clipper.values.inputs.record_reader import RecordReader
from clipper.values.records import RecordType
from tests.api.dashboard.browser import Screen, chromium

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def screen(management: tuple[str, Any]) -> Iterator[Screen]:
    with chromium() as browser:
        screen = Screen(browser, management[0])
        screen.page.goto(f"{screen.url}/dashboard/")
        yield screen


def call(screen: Screen, module: str, function: str, *arguments: Any) -> Any:
    code = "async ([module, name, given]) => (await import(`/dashboard/${module}`))[name](...given)"
    return screen.page.evaluate(code, [module, function, list(arguments)])


def test_the_last_minute(screen: Screen) -> None:
    series = {
        "rate": [1000.0, *[0.0] * 27, 30.0, None, 10.0],
        "p99_ms": [1000.0, *[None] * 27, 5.0, None, 7.0],
    }
    recent = call(screen, "pages/recent.js", "recentOf", series)
    # The first value is older than that.
    assert recent["rate"] == pytest.approx(40 / 29)
    assert recent["p99_ms"] == 7.0
    assert set(call(screen, "pages/recent.js", "recentOf", None).values()) == {None}
    assert call(screen, "pages/recent.js", "smoothed", [None, 1.0, None, 3.0]) == [None, 1.0, None, 2.0]


def test_applications_that_break_their_objective_come_first(screen: Screen) -> None:
    def trouble(p99_ms: float | None = None, problem: str | None = None, **shares: float | None) -> Any:
        shares = {"late": None, "errors": None, "defaults": None, "asked_defaults": None, **shares}
        given = {"recent": {"p99_ms": p99_ms}, "slo_ms": 20.0, "problem": problem, "shares": shares}
        return call(screen, "pages/trouble.js", "troubleOf", given)

    assert [trouble(), trouble(late=0.01), trouble(p99_ms=21.0), trouble(late=0.5), trouble(errors=0.5)] == [
        0,
        0,
        1,
        1,
        1,
    ]
    # A default that the threshold of confidence asks for is no trouble, and any other is.
    assert [trouble(defaults=0.3, asked_defaults=asked) for asked in (0.295, 0.25, None)] == [0, 1, 1]
    assert trouble(problem="it hangs") == 1


@pytest.mark.parametrize(
    ("late", "failed", "seconds"),
    [
        ([0.0, 0.5, 0.5], [0.0, 0.0, 0.0], 4.0),
        ([0.5, 0.0, None], [0.0, 0.0, None], 0.0),
        ([0.0, 0.5, None, 0.5, None], [0.0, 0.5, None, 0.5, None], 8.0),
        ([0.0, 0.0, 0.0], [0.0, 0.9, 0.9], 4.0),
        ([0.5, 0.5], [0.5, 0.5], 4.0),
        ([], [], 0.0),
    ],
)
@pytest.mark.parametrize("kind", ["default_share", "error_share"])
def test_since_when_an_objective_is_missed(
    screen: Screen, late: list[Any], failed: list[Any], seconds: float, kind: str
) -> None:
    series = {"late_share": late, kind: failed}
    assert call(screen, "pages/trouble.js", "troubledFor", series, 2.0) == seconds


def test_why_an_objective_is_missed(screen: Screen) -> None:
    def why(late_share: float, problem: str | None = None, **minute: Any) -> Any:
        shares = {"late": late_share, "errors": 0.0, "defaults": 0.0, "asked_defaults": 0.0}
        minute = {"queries": 100, "late": 0, "errors": {}, "defaults": {}, "explanations": {}, **minute}
        given = {"recent": {"p99_ms": 1.0}, "slo_ms": 20.0, "problem": problem, "shares": shares, "last_minute": minute}
        return call(screen, "pages/trouble.js", "whyTroubled", given)

    assert why(0.0, defaults={"timeout": 1}) == []
    explained = {"late": 30, "defaults": {"timeout": 20, "low_confidence": 50}, "explanations": {"timeout": "full"}}
    assert why(0.3, **explained) == ["20 timeout: full", "10 answers came after the SLO"]
    assert why(0.3, "it hangs", late=1, errors={"model_error": 9}) == [
        "it hangs",
        "9 model_error",
        "1 answer came after the SLO",
    ]


def test_shares_of_the_last_minute_are_of_its_queries(screen: Screen) -> None:
    counted = {"queries": 40, "late": 10, "errors": {"timeout": 8, "model_error": 2}, "defaults": {"low_confidence": 4}}
    shares = {"late": 0.25, "errors": 0.25, "defaults": 0.1, "asked_defaults": 0.1}
    assert call(screen, "pages/recent.js", "sharesOf", counted) == shares
    # Its answers may be to queries of before.
    assert call(screen, "pages/recent.js", "sharesOf", {**counted, "queries": 0, "late": 10})["late"] == 1
    assert set(call(screen, "pages/recent.js", "sharesOf", None).values()) == {None}


@pytest.mark.parametrize(
    ("output", "label_field", "label"),
    [
        ([1, 2], None, [1, 2]),
        ({"label": "a", "scores": [1]}, None, "a"),
        ({"label": "a", "scores": [1]}, "scores", [1]),
        ({"kind": "a", "scores": [1]}, None, "a"),
        ({"kind": "a", "name": "b"}, None, {"kind": "a", "name": "b"}),
        ({"kind": "a"}, "name", {"kind": "a"}),
        (None, "name", None),
    ],
)
def test_a_label_is_of_the_value_that_it_is_compared_with(
    screen: Screen, output: Any, label_field: str | None, label: Any
) -> None:
    assert call(screen, "pages/try.js", "labelOf", output, label_field) == label


def test_an_empty_chart_says_why(screen: Screen) -> None:
    def why(left_out: bool, **series: list[float | None]) -> Any:
        given = {"series": series, "left_out": left_out}
        return call(screen, "pages/series.js", "whyEmpty", given, "No feedback came in this time.")

    assert why(False, rate=[0.0, None], mean_loss=[None, None]) == "No feedback came in this time."
    assert why(True, rate=[0.0]) == "No feedback came in this time."
    assert why(True, rate=[None]).startswith("This is not recorded")
    for nothing in ({}, {"rate": []}, {"rate": [None, None]}):
        assert why(False, **nothing).startswith("There are no values of this time")


@pytest.mark.parametrize(
    ("text", "shape", "example"),
    [
        ("float64[3]", [3], [0, 0, 0]),
        ("int32[2,*]", [2, None], [[0], [0]]),
        ("bool[1]", [1], [False]),
        ("float32[]", [], 0),
        ("string", [], "a text"),
        ("bytes", [], "Ynl0ZXM="),
    ],
)
def test_an_example_is_an_input_of_the_type(screen: Screen, text: str, shape: list[Any], example: Any) -> None:
    kind = call(screen, "pages/inputs.js", "readType", text)
    assert kind == {"dtype": text.partition("[")[0], "shape": shape}
    assert call(screen, "pages/inputs.js", "exampleOf", kind) == example


RECORD = 'age: float64, "petal, x": float32? = 0.5, sex: string{"f,m", "m"}?, px: uint8[2,2], name: string'


def test_an_example_of_a_record_has_its_fields(screen: Screen) -> None:
    kind = call(screen, "pages/inputs.js", "readType", RECORD)
    assert [(each["name"], each["type"]["dtype"], each["isNullable"]) for each in kind["fields"]] == [
        ("age", "float64", False),
        ("petal, x", "float32", True),
        ("sex", "string", True),
        ("px", "uint8", False),
        ("name", "string", False),
    ]
    example = call(screen, "pages/inputs.js", "exampleOf", kind)
    assert example == {"age": 0, "petal, x": 0.5, "sex": "f,m", "px": [[0, 0], [0, 0]], "name": "a text"}
    reader = RecordReader(RecordType.parse(RECORD))
    assert reader.read(json.dumps(example).encode())
    query = {"url": "http://h:1", "application": "app", "type": kind, "input": example, "context": "", "hasKey": False}
    curl, python, triton = (one["code"] for one in call(screen, "pages/inputs.js", "samples", query))
    assert json.loads(shlex.split(curl)[3]) == {"input": example}
    for code in (python, triton):
        compile(code, "sample", "exec")


def test_the_same_query_in_other_ways(screen: Screen) -> None:
    query = {
        "url": "https://[::1]:1337",
        "application": "it's",
        "type": {"dtype": "bool", "shape": [2]},
        "input": [True, False],
        "context": "a'b",
        "hasKey": True,
    }
    curl, python, triton = (one["code"] for one in call(screen, "pages/inputs.js", "samples", query))
    assert "$CLIPPER_API_KEY" in curl
    words = shlex.split(curl)
    assert words[3] == "https://[::1]:1337/it's/predict"
    assert json.loads(words[5]) == {"input": [True, False], "context": "a'b"}
    for code in (python, triton):
        compile(code, "sample", "exec")
    assert 'predict("it\'s", [True, False], context="a\'b")' in python
    assert 'InferenceServerClient("[::1]:1337", ssl=True)' in triton and '[1, 2], "BOOL"' in triton
    as_bytes = query | {"type": {"dtype": "bytes", "shape": []}, "input": "Ynl0ZXM=", "context": "", "hasKey": False}
    for one in call(screen, "pages/inputs.js", "samples", as_bytes)[1:]:
        compile(one["code"], "sample", "exec")
        assert "base64.b64decode" in one["code"]


def test_metrics_are_read_for_one_application(screen: Screen) -> None:
    text = "\n".join(
        [
            "# TYPE c_bucket histogram",
            'c_bucket{application="a",worker="0",le="0.5"} 1.0',
            'c_bucket{application="a",worker="0",le="+Inf"} 3.0',
            'c_bucket{application="a",worker="1",le="0.5"} 1.0',
            'c_bucket{application="a",worker="1",le="+Inf"} 1.0',
            'c_bucket{application="b",worker="0",le="0.5"} 9.0',
            'r{application="a",worker="0"} 2.5',
            'r{application="a",worker="1"} NaN',
            'r{application="a\\"} 1",worker="1"} 7',
            'r{model="m",application="a"',
            "up 1",
        ]
    )
    samples = call(screen, "metrics.js", "samplesOf", text, "a")
    assert len(samples) == 6
    assert call(screen, "metrics.js", "total", samples, "r") == 2.5
    assert call(screen, "metrics.js", "total", samples, "none") is None
    bins = call(screen, "metrics.js", "histogram", samples, "c")
    assert [one["count"] for one in bins] == [2, 2]
    assert [one["labels"]["application"] for one in call(screen, "metrics.js", "samplesOf", text, 'a"} 1')] == ['a"} 1']


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("number", None, "–"),
        ("number", 0, "0"),
        ("number", 12345.6, "12,346"),
        ("number", 0.00012, "1.2e-4"),
        ("percent", None, "–"),
        ("percent", 0, "0 %"),
        ("percent", 0.0001, "< 0.1 %"),
        ("percent", 0.0456, "4.6 %"),
        ("percent", 1, "100 %"),
        ("duration", 119, "119 s"),
        ("duration", 7199, "119 min"),
        ("duration", 90000, "25 h"),
        ("megabytes", 1048576, "1 MiB"),
        ("milliseconds", 20, "20 ms"),
    ],
)
def test_numbers_as_people_read_them(screen: Screen, function: str, value: Any, text: str) -> None:
    assert call(screen, "format.js", function, value) == text


def test_the_graph_of_a_pipeline(screen: Screen) -> None:
    steps = {
        "language": {"input": "query"},
        "translate": {"input": "query", "when": 'language.label == "or"'},
        "words": {"input": "translate or query"},
        "boxes": {"input": "item.box", "for_each": "words.all"},
        "topic": {"input": {"words": "words", "tone": "query"}},
    }
    needs = call(screen, "pages/graph.js", "needsOf", steps)
    assert needs == {
        "language": [],
        "translate": ["language"],
        "words": ["translate"],
        "boxes": ["words"],
        "topic": ["words"],
    }
    assert list(call(screen, "pages/graph.js", "depthsOf", needs).values()) == [0, 1, 2, 3, 3]
    assert call(screen, "pages/graph.js", "answeredBy", {"steps": steps, "output": None}) == ["topic"]
    output = {"topic": "topic.label", "text": "translate or query"}
    assert call(screen, "pages/graph.js", "answeredBy", {"steps": steps, "output": output}) == ["translate", "topic"]


def test_what_is_shown_of_a_step(screen: Screen) -> None:
    latency = {"mean_ms": 3.0, "p99_ms": 9.0}
    models = [{"model": "m", "version": "2", "waiting": 4}, {"model": "n", "version": "1", "waiting": 1}]
    steps = [
        {"step": "a", "application": "app.a", "queries": 10, "latency": latency, "models": models},
        {"step": "b", "application": "app.b", "queries": 90, "latency": {"mean_ms": 1.0, "p99_ms": 2.0}, "models": []},
        {"step": "c", "application": "app.c", "queries": 0, "latency": None, "models": []},
    ]
    code = """async (steps) => {
        const minute = new Map([["app.a", { queries: 120, errors: { timeout: 6 }, defaults: { timeout: 6 } }]]);
        return (await import("/dashboard/pages/graph.js")).rowsOf(steps, minute);
    }"""
    first, second, third = screen.page.evaluate(code, steps)
    assert (first["rate"], first["lost"], first["waiting"], first["share"]) == (2.0, 0.1, 5, 0.25)
    assert first["models"] == "m:2, n:1"
    assert (second["rate"], second["lost"], second["share"]) == (None, None, 0.75)
    assert third["share"] == 0
