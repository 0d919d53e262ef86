"""``clipper app``: applications, what they learned, and reports on their models."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import typer

from clipper.api.learned import Newcomer
from clipper.control.descriptions import EndedRamp
from clipper.settings.application import Configured, Link
from tests.cli.in_process import Run
from tests.conftest import Api


def test_applications(run: Run, api: Api) -> None:
    created = run("app", "create", "digits", "--model", "m", "--slo-ms", "20", "--default", "0")
    assert (created.status, created.err) == (0, "")
    assert "application digits takes float64[*] and answers within 20 ms" in created.out
    assert "next: clipper predict digits INPUT" in created.out
    assert api.operations.applications["digits"].links == (Link("m"),)
    assert "digits" in run("app", "list").out
    assert run("app", "show", "digits", "--json").json["default_output"] == 0
    assert run("app", "update", "digits", "--default", '{"a": 1}', "--json").json["default_output"] == {"a": 1}
    assert run("app", "update", "digits", "--slo-ms", "30", "--json").json["slo_ms"] == 30
    told = run("app", "update", "digits", "--slo-ms", "40", "--calibrate").out.splitlines()
    assert [line.split() for line in told] == [
        ["what", "was", "is"],
        ["slo", "ms", "30", "40"],
        ["calibrate", "no", "yes"],
    ]
    assert "nothing is changed" in run("app", "update", "digits", "--slo-ms", "40").out
    assert "digits asks other:2" in run("app", "link", "digits", "other", "--version", "2").out
    assert run("app", "unlink", "digits", "other", "--json").json["links"] == []
    assert run("app", "delete", "digits", "--yes").status == 0
    assert "next: clipper app create" in run("app", "list").out


def test_a_long_value_comes_from_a_file_or_standard_input(
    run: Run, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "default.json").write_text('{"label": "none"}\n')
    (tmp_path / "type.txt").write_text("age: float64, job: string?\n")
    run("app", "create", "a", "--input-type", f"@{tmp_path / 'type.txt'}", "--default", f"@{tmp_path / 'default.json'}")
    made = api.operations.applications["a"]
    assert (made.input_type, made.default_output) == ("age: float64, job: string?", {"label": "none"})
    monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2]"))
    assert run("app", "update", "a", "--default", "-", "--json").json["default_output"] == [1, 2]
    absent = run("app", "update", "a", "--default", "@absent.json")
    assert absent.status == 2 and "absent.json cannot be read" in absent.err


def test_an_error_is_json_if_the_result_would_be(run: Run) -> None:
    refused = run("app", "show", "absent", "--json")
    assert (refused.status, refused.out, json.loads(refused.err)["error"]) == (1, "", "not_found")


def test_an_application_is_deleted_only_if_that_is_meant(run: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run("app", "create", "digits", "--model", "m")
    api.operations.contexts = ["a", "b"]
    refused = run("app", "delete", "digits")
    assert refused.status == 1
    assert "would forget what it has learned, also in 2 contexts" in refused.err and "add --yes" in refused.err
    monkeypatch.setattr("clipper.cli.options.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    asked: list[str] = []

    def answer(question: str, *, abort: bool) -> None:
        asked.append(question)
        if len(asked) == 1:
            raise typer.Abort

    monkeypatch.setattr("clipper.cli.options.typer.confirm", answer)
    assert run("app", "delete", "digits").status != 0 and "digits" in api.operations.applications
    assert run("app", "delete", "digits").status == 0 and "digits" not in api.operations.applications
    assert asked == ["Remove application digits, and forget what it has learned, also in 2 contexts?"] * 2
    assert run("app", "delete", "digits").status == 1


def test_an_application_with_a_policy(run: Run, api: Api) -> None:
    options = "--model svm --model net:2 --shadow forest --policy weighted --policy-parameter note=some"
    more = "--loss absolute --loss-parameter range=10 --half-life none --prior-weight 3 --confidence-threshold 0.6"
    weights = 'weights={"svm": 95, "net": 5}'
    made = run(
        "app",
        "create",
        "app",
        *options.split(),
        "--policy-parameter",
        weights,
        *more.split(),
        "--feedback-ttl-s",
        "60",
        "--log-decisions",
        "0.25",
        "--confidence-from",
        "probabilities",
        "--calibrate",
    )
    assert made.status == 0
    app = api.operations.applications["app"]
    assert app.links == (Link("svm"), Link("net", "2"), Link("forest", shadow=True))
    assert app.policy == Configured("weighted", {"note": "some", "weights": {"svm": 95, "net": 5}})
    assert app.loss == Configured("absolute", {"range": 10})
    assert (app.half_life, app.prior_weight, app.confidence_threshold, app.feedback_ttl_s) == (None, 3, 0.6, 60)
    assert app.log_decisions == 0.25
    assert (app.confidence_from, app.calibrate) == ("probabilities", True)
    shown = run("app", "show", "app").out
    assert "svm, net:2, forest (shadow)" in shown and "absolute range=10" in shown
    rows = dict(line.split("  ", 1) for line in shown.splitlines() if "  " in line)
    assert rows["confidence from"].strip() == "probabilities" and rows["calibrate"].strip() == "yes"

    learned = run("app", "policy", "app", "--context", "u").out
    assert "svm" in learned and "75.0%" in learned and "█" * 15 in learned and "0.250" in learned
    assert "forest (shadow)" in learned and "in context u, from 12 observations" in learned
    assert run("app", "policy", "app", "--json").json["observations"] == 12.0

    changes = "--log-decisions 0 --policy exp3 --policy-parameter eta=0.5 --half-life 50 --confidence-threshold none"
    changed = run("app", "update", "app", *changes.split(), "--no-calibrate", "--json").json
    assert (changed["confidence_from"], changed["calibrate"]) == ("probabilities", False)
    assert changed["policy"] == {"name": "exp3", "parameters": {"eta": 0.5}}
    assert (changed["half_life"], changed["confidence_threshold"]) == (50, None)
    assert (changed["loss"]["name"], changed["prior_weight"], changed["log_decisions"]) == ("absolute", 3, 0)
    assert "as a shadow" in run("app", "link", "app", "other", "--shadow").out


def test_what_models_cost(run: Run, api: Api) -> None:
    options = "--model svm --model net:2 --cost svm=1 --cost net:2=20.5 --cost-weight 0.01 --policy cascade"
    assert run("app", "create", "app", *options.split()).status == 0
    app = api.operations.applications["app"]
    assert app.links == (Link("svm", cost=1.0), Link("net", "2", cost=20.5)) and app.cost_weight == 0.01
    shown = run("app", "show", "app").out
    assert "svm (cost 1), net:2 (cost 20.5)" in shown and "0.01" in shown
    learned = run("app", "policy", "app").out
    # A column for what some of them have, and a line for what the queries did.
    assert "goes on below" in learned and "0.85" in learned and "20.5" in learned
    assert "cost 4.5 on average" in learned and "12.5% of queries have gone on to stage 2" in learned
    assert "at a cost of 3" in run("app", "link", "app", "svm", "--cost", "3").out
    changed = run("app", "update", "app", "--cost-weight", "0", "--json").json
    assert changed["cost_weight"] == 0 and changed["links"][0]["cost"] == 3
    assert "at a cost of auto" in run("app", "link", "app", "svm", "--cost", "auto").out
    assert "svm (cost auto)" in run("app", "show", "app").out
    run("app", "create", "plain", "--model", "svm")
    assert "goes on below" not in run("app", "policy", "plain").out


def test_costs_that_are_to_be_measured(run: Run, api: Api) -> None:
    """Of all models whose cost is not given, whichever comes first; or of one."""
    for name, costs in {"a": "--cost auto --cost net=3", "b": "--cost net=3 --cost auto"}.items():
        assert run("app", "create", name, *f"--model svm --model net --shadow new {costs}".split()).status == 0
        made = api.operations.applications[name]
        assert made.links == (Link("svm", cost="auto"), Link("net", cost=3.0), Link("new", shadow=True, cost="auto"))
    assert run("app", "create", "c", "--model", "svm", "--model", "net", "--cost", "svm=auto").status == 0
    assert api.operations.applications["c"].links == (Link("svm", cost="auto"), Link("net"))


def test_features(run: Run, api: Api) -> None:
    assert run("app", "create", "digits", "--policy", "linucb", "--features", "3").status == 0
    applications = api.operations.applications
    assert applications["digits"].features == 3
    assert "3" in run("app", "show", "digits").out
    for text, features in (("input", "input"), ("none", None), ("64", 64)):
        assert run("app", "update", "digits", "--features", text).status == 0
        assert applications["digits"].features == features
    for wrong in ("2.5", "-1"):
        assert run("app", "update", "digits", "--features", wrong).status == 2
    assert run("predict", "digits", "[1]", "--features", "[0.5, 2]").out == "7\n"
    run("observe", "digits", "--input", "[1]", "--label", "3", "--features", "[0.5, 2]")
    assert api.operations.observed[-1]["features"] == [0.5, 2]


def test_calibration_is_shown_and_drawn(run: Run, api: Api, tmp_path: Path) -> None:
    run("app", "create", "app", "--model", "svm")
    nothing = run("app", "calibration", "app").out
    assert "it is not known how often" in nothing and "next: clipper app update app --calibrate" in nothing
    run("app", "update", "app", "--calibrate")
    page = tmp_path / "page.html"
    shown = run("app", "calibration", "app", "--html", str(page)).out
    assert "svm, probability" in shown and "0.9900" in shown and "75.0%" in shown and "0.8000" in shown
    assert "1.0000" not in shown, "of a fiftieth of an answer there is nothing to tell"
    error = "expected calibration error 0.033 as answered, 0.240 raw, by 12 answers"
    assert error in shown and error in run("app", "policy", "app").out
    assert run("app", "calibration", "app", "--json").json[0]["answered_error"] == 0.033
    drawn = page.read_text()
    assert "<svg" in drawn and "src=" not in drawn and error in drawn
    assert run("app", "calibration", "app", "--html", str(tmp_path / "no" / "page.html")).status == 2
    assert run("app", "calibration", "app", "--html", str(tmp_path)).status == 2


def test_a_report_is_written_as_asked(run: Run, api: Api, tmp_path: Path) -> None:
    run("app", "create", "app", "--model", "m", "--slo-ms", "20")
    api.operations.contexts = ["u"]
    told = run("app", "report", "app", "--by-context", "--html", str(tmp_path / "page.html"))
    assert (told.status, told.err) == (0, "")
    assert "all queries: Not known yet" in told.out and "context u: Not known yet" in told.out
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")
    found = run("app", "report", "app", "--confidence", "0.9", "--tolerance", "0.1", "--json").json
    assert (found["confidence"], found["tolerance"], len(found["groups"])) == (0.9, 0.1, 1)
    nowhere = run("app", "report", "app", "--html", str(tmp_path / "none" / "page.html"))
    assert (nowhere.status, "cannot be written" in nowhere.err) == (2, True)
    both = run("app", "report", "app", "--context", "u", "--by-context")
    assert (both.status, "either --context or --by-context" in both.err) == (2, True)


def test_contexts_are_listed_and_deleted(run: Run, api: Api) -> None:
    run("app", "create", "app", "--model", "svm")
    api.operations.contexts = ["user 7/8", "\x1b[2J", "plain"]
    listed = run("app", "contexts", "list", "app", "--limit", "2")
    assert "user 7/8" in listed.out and '"\\u001b[2J"' in listed.out and "\x1b[2J" not in listed.out
    assert "2 of 3" in listed.out and "plain" not in listed.out
    assert "has forgotten" in run("app", "contexts", "delete", "app", "user 7/8").out
    assert run("app", "contexts", "list", "app", "--json").json == {"count": 2, "contexts": ["\x1b[2J", "plain"]}
    missing = run("app", "contexts", "delete", "app", "user 7/8")
    assert missing.status == 1 and "user 7/8" in missing.err


def test_what_a_policy_did_wrong_is_shown(run: Run, api: Api) -> None:
    run("app", "create", "app", "--model", "m")
    broken = msgspec.structs.replace(api.operations.applications["app"], problem="policy own:P failed in select")
    api.operations.applications["app"] = broken
    assert "policy own:P failed in select" in run("app", "show", "app").out
    assert "problem: policy own:P failed in select" in run("app", "policy", "app").out


def test_newcomers_are_shown(run: Run, api: Api, model: str) -> None:
    run("app", "create", "app", "--model", "m", "--policy", "exp3", "--ramp", "0.1", "--max-loss-increase", "none")
    made = api.operations.applications["app"]
    assert (made.ramp, made.max_loss_increase) == (0.1, None)
    ramped = Newcomer("digits", "1", "0", 0.1, 37, 700, 200, 0.25, 0.125, None)
    stopped = Newcomer("m", "3", None, 0.0, 9, 171, 200, 1.0, 0.1, "9 answers lost more")
    api.operations.applications["app"] = msgspec.structs.replace(made, newcomers=(ramped, stopped))
    shown = " ".join(run("app", "show", "app").out.replace("│", " ").split())
    assert "newcomer digits:1" in shown and "10.00% of the queries, beside digits:0; 37 of 200 answers" in shown
    assert "lost 0.250 on average, the others 0.125" in shown
    assert "newcomer m:3" in shown and "stopped: 9 answers lost more" in shown
    assert "ramp 0.1" in shown and "max loss increase none" in shown and "it waits" not in shown
    linked = run("app", "link", "app", "digits:1")
    assert (
        "asks digits:1, for 10.0% of its queries until feedback has shown its worth: clipper app show app" in linked.out
    )
    assert "10.0%" not in run("app", "link", "app", "digits:2").out
    assert "app sends it 10.0% of its queries until feedback shows its worth" in run("deploy", "digits", model).out
    # With enough feedback it may wait, and at last its ramp ends.
    waiting = msgspec.structs.replace(ramped, feedback=260)
    ended = EndedRamp("digits", "0", 1_700_000_000.0, 200, 3800, 0.25, 0.125)
    api.operations.applications["app"] = msgspec.structs.replace(made, newcomers=(waiting,), ended_ramps=(ended,))
    shown = " ".join(run("app", "show", "app").out.replace("│", " ").split())
    assert "260 of 200 answers" in shown and "it waits, since it may lose more than is allowed" in shown
    assert "ramp of digits:0 ended 2023-11-1" in shown
    assert "the policy decides its share; 200 answers with feedback, which lost 0.250 on average" in shown
    api.operations.applications["app"] = msgspec.structs.replace(made, newcomers=())
    assert "newcomer" not in run("app", "show", "app").out
