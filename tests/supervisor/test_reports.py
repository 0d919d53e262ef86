"""Tests that end themselves, and reports, end to end: a real server, models of known loss, commands as users give."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.cli.main import main
from clipper.client import Clipper
from clipper.learning.mathematics.comparison import PooledEvidence, compare
from clipper.learning.mathematics.confidence_sequences import Evidence
from clipper.worker.selection.query import QueryIds
from tests.supervisor.live_server import Server
from tests.supervisor.three_models import ROW, with_application
from tests.waiting import until

# How often each label is wrong: the models answer 1, 2 and 3, so that these are their mean losses.
SHARES = {1: 0.1, 2: 0.4, 3: 0.9}
LOSSES = {"one": 0.1, "two": 0.4}
AT_ONCE = 40
# Of intervals that have to hold what is true in each run of this test.
SURE = 0.999999


class Losses:
    """Losses of 0 and 1 in a fixed order, so that each share is exact to one loss at any time.

    Which model answers is chance enough: by chance of the losses, too, a report would be another one now and then.
    """

    def __init__(self) -> None:
        self._told: Counter[object] = Counter()

    def next(self, of: object, share: float) -> float:
        before = round(self._told[of] * share, 6)
        self._told[of] += 1
        return float(int(round(self._told[of] * share, 6)) > int(before))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two models on which a test has ended, and a third that is not linked."""
    server = Server(tmp_path_factory.mktemp("taught") / "home")
    try:
        policy = {"name": "best_arm", "parameters": {"tolerance": 0.05}}
        # Without a ramp, a newcomer is tested at once.
        links = [{"model": "one"}, {"model": "two"}]
        with_application(server, "--workers", "2", links=links, policy=policy, ramp=None)
        yield server
    finally:
        server.clean_up()


def teach(server: Server, losses: Losses, **fields: Any) -> list[int]:
    """Ask, and tell of each answer whether it was right; what was answered."""
    answers = [server.predict("app", ROW, **fields) for _ in range(AT_ONCE)]
    told = [
        {"query_id": each["query_id"], "reward": 1.0 - losses.next(each["output"], SHARES[each["output"]])}
        for each in answers
    ]
    assert server.observe("app", observations=told).status_code == 200
    return [each["output"] for each in answers]


def test_a_test_ends_survives_a_restart_and_reopens_for_a_newcomer(taught: Server) -> None:
    losses = Losses()

    def is_over(clipper: Clipper) -> bool:
        test = clipper.policy("app").test
        assert test is not None
        return test.winner is not None

    with Clipper.connect(home=taught.home) as clipper:
        assert not is_over(clipper)
        before = clipper.report("app").groups[0]
        assert (before.verdict, before.best, before.feedback) == ("no_feedback", None, 0)

        def ended() -> bool:
            teach(taught, losses)
            return is_over(clipper)

        until(ended)
        teach(taught, losses, context="u")
        (group,) = clipper.report("app").groups
        assert group.test is not None
        assert (group.test.winner, group.test.confidence, group.test.tolerance) == ("one", 0.95, 0.05)
        assert (group.best, group.more_feedback) == ("one", 0)
        assert 'clipper_test_winner{application="app",model="one"} 1.0' in taught.metrics
        until(lambda: any("one is the best model" in event.text for event in clipper.history()))
        assert group.verdict in ("best", "as_good")
        (sure,) = clipper.report("app", confidence=SURE).groups
        for model in sure.models:
            assert model.interval.low <= LOSSES[model.model] <= model.interval.high
            assert (model.version, model.is_linked, model.is_shadow) == ("1", True, False)
            assert model.asked > 0 and model.latency is not None and model.latency.p99_ms > 0
        worse = sure.models[1].worse_by
        assert worse is not None and worse.low <= 0.3 <= worse.high

    taught.kill_everything()
    taught.start("--workers", "2").until_ready()
    # Until a worker has linked the model, it asks another one in its place.
    until(lambda: set(teach(taught, losses)) == {1})

    with Clipper.connect(home=taught.home) as clipper:
        assert is_over(clipper)
        # Of the newcomer, too, the workers have to know a replica first.
        clipper.create_application("third", model="three", slo_ms=20_000)
        until(lambda: len({QueryIds.instance_of(taught.predict("third", ROW)["query_id"]) for _ in range(9)}) == 2)
        clipper.link("app", "three")
        assert not is_over(clipper)
        answered: list[int] = []

        def ended_again() -> bool:
            answered.extend(teach(taught, losses))
            return is_over(clipper)

        until(ended_again)
        # The model that lost before takes no part in it.
        assert set(answered) == {1, 3}
        clipper.delete_application("third")
        (group,) = clipper.report("app").groups
        assert group.test is not None and group.test.winner == group.best == "one"
        # A report with stricter limits than the test's rests on the evidence alone.
        stricter = clipper.report("app", confidence=SURE, tolerance=0.0).groups[0]
        assert (stricter.verdict, stricter.best) in (("open", "one"), ("best", "one"))
        (own,) = clipper.report("app", context="u").groups
        assert own.test is None


def test_the_command_tells_it_as_text_json_and_a_page(
    taught: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["clipper", "app", *arguments, "--home", str(taught.home)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code in (0, None), err
        return out

    page = tmp_path / "report.html"
    text = run("report", "app", "--by-context", "--html", str(page))
    assert "all queries: The test is over: one:1 is the best, confidence 0.95, tolerance 0.05, after" in text
    assert "context u: Not known yet." in text
    assert "one is the best, confidence 0.95, tolerance 0.05, after" in run("policy", "app")
    assert "one is the best, confidence 0.95, tolerance 0.05, after" in run("show", "app")
    found = json.loads(run("report", "app", "--context", "u", "--json"))
    assert [group["context"] for group in found["groups"]] == ["u"]
    assert found["groups"][0]["feedback"] == AT_ONCE
    html = page.read_text()
    # Of all queries both charts. In the context a worker that had not seen the end may have asked another model.
    assert html.count("<svg") in (3, 4)


@pytest.mark.long
def test_a_model_asked_where_queries_are_hard_is_not_reported_as_worse(taught: Server) -> None:
    """It loses 0.325 over all queries and the other 0.4. By the means of losses the other would be the best."""
    shares = {"hard": {1: 0.4, 2: 0.8}, "easy": {1: 0.25, 2: 0.0}}
    losses, lost, told = Losses(), {1: 0.0, 2: 0.0}, {1: 0, 2: 0}
    links = [{"model": "one"}, {"model": "two"}]
    taught.call("POST", "/applications", {"name": "picks", "slo_ms": 20_000, "links": links, "policy": "exp3"})
    for index in range(40):
        observations = []
        for _ in range(AT_ONCE // 2):
            for context in shares:
                answer = taught.predict("picks", ROW, context=context)
                loss = losses.next((context, answer["output"]), shares[context][answer["output"]])
                lost[answer["output"]] += loss
                told[answer["output"]] += 1
                observations.append({"query_id": answer["query_id"], "reward": 1.0 - loss})
        assert taught.observe("picks", observations=observations).status_code == 200, index
    by_means = compare(
        ("1", "2"),
        PooledEvidence({str(model): Evidence(told[model], lost[model]) for model in told}, sum(told.values())),
        0.95,
        0.0,
    )
    assert (by_means.verdict, by_means.best) == ("best", "2"), "this is what must not be reported"
    with Clipper.connect(home=taught.home) as clipper:
        everything, *contexts = clipper.report("picks", by_context=True, confidence=SURE).groups
    assert (everything.estimator, everything.compared, everything.verdict) == ("weighted", 1600.0, "open")
    assert "divided by the probability" in everything.basis
    for model, mean in (("one", 0.325), ("two", 0.4)):
        found = next(each for each in everything.models if each.model == model)
        assert found.interval.low < mean < found.interval.high
    # The policy beats each single model. It is compared with the best model of each context, beside which it loses,
    # unless chance makes up for the little that it loses.
    metrics = [line for line in taught.metrics.splitlines() if line.startswith("clipper_selection_regret{")]
    (line,) = [line for line in metrics if 'application="picks"' in line]
    assert 'against="context"' in line and -40 < float(line.split()[-1]) < sum(lost.values())
    assert sum(lost.values()) < 0.325 * 1600
    # Within a context it is the policy's past alone that picks. How sure the report is depends on what it picked.
    assert {(each.context, each.estimator, each.best) for each in contexts} == {
        ("hard", "pooled", "one"),
        ("easy", "pooled", "two"),
    }
    assert {each.verdict for each in contexts} <= {"best", "as_good", "open"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("confidence=1", "invalid_argument"),
        ("confidence=0.2", "invalid_argument"),
        ("tolerance=-1", "invalid_argument"),
        ("confidence=nan", "invalid_argument"),
        ("context=", "invalid_argument"),
        ("context=u&by_context=true", "invalid_argument"),
        ("confidence=x", "malformed_request"),
    ],
)
def test_wrong_questions_are_refused(taught: Server, query: str, code: str) -> None:
    assert taught.call("GET", f"/applications/app/report?{query}", status=400)["error"] == code


def test_an_application_that_is_not_there_has_no_report(taught: Server) -> None:
    assert taught.call("GET", "/applications/none/report", status=404)["error"] == "not_found"


def test_a_context_that_is_not_there_has_no_feedback(taught: Server) -> None:
    (group,) = taught.call("GET", "/applications/app/report?context=nobody")["groups"]
    assert (group["verdict"], group["feedback"]) == ("no_feedback", 0)
