"""The commands that speak HTTP, against the management API on a real socket."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from clipper.build import form
from clipper.cli.main import main
from clipper.errors import Unavailable
from clipper.events.log import NewEvent
from clipper.management.learned import Newcomer
from clipper.registry.sqlite import SqliteRegistry
from clipper.settings.application import Configured, Link
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching
from conftest import READ_TOKEN, TOKEN, Api
from memory_operations import LOG_TAIL


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``clipper`` with these arguments."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["clipper", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def run(bare: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As ``bare``, with a server to be found by its home."""
    monkeypatch.setenv("CLIPPER_HOME", str(api.home))
    return bare


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "digits.joblib"
    path.write_bytes(b"weights")
    return str(path)


def test_deploy(run: Run, api: Api, model: str) -> None:
    result = run("deploy", "digits", model)
    assert (result.status, result.err) == (0, "")
    assert "digits:1 is ready: 1 replica, takes float64[4], current" in result.out
    assert "next: clipper app create digits --model digits" in result.out
    (deployment,) = api.operations.deployments
    assert (deployment.batching, deployment.cache, deployment.memory_bytes) == (Batching(), True, None)


def test_deploy_sends_requirements_and_shows_a_warning(run: Run, api: Api, model: str) -> None:
    requirements = Path(model).with_name("reqs.txt")
    requirements.write_text("scikit-learn==1.5.2\n")
    result = run("deploy", "aged", model, "--requirements", str(requirements), "--python", "3.12")
    assert (result.status, result.err) == (0, "warning: the model is older than its library\n")
    (deployment,) = api.operations.deployments
    assert (deployment.requirements, deployment.python, deployment.needs) == ("requirements.txt", "3.12", ("joblib",))
    assert "warning: version 1: the model is older than its library" in run("model", "show", "aged").out


def test_a_deployment_that_takes_long_says_in_a_file_what_it_does(
    run: Run, api: Api, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipper.cli.output._SILENT_S", -1.0)
    assert run("deploy", "digits", model).err.splitlines()[:2] == ["packing the model", "sending 0.0 MB"]


def test_only_a_terminal_is_redrawn(run: Run, api: Api, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks and CI have it
    result = run("deploy", "digits", model)
    assert "is ready" in result.out and result.err == ""


def test_a_version_whose_replicas_all_crash_is_not_called_ready(run: Run, api: Api, model: str) -> None:
    run("deploy", "digits", model)
    versions = api.operations.versions["digits"]
    crashing = [
        msgspec.structs.replace(one, state="crash_loop", last_error="it exited with 3")
        for one in versions["1"].replicas
    ]
    versions["1"] = msgspec.structs.replace(versions["1"], replicas=tuple(crashing))
    shown = run("model", "show", "digits").out
    assert "crash_loop" in shown and " ready " not in shown
    assert shown.count("it exited with 3") == 1
    assert run("replica", "list").out.splitlines()[-1] == "digits:1#1: it exited with 3"


def test_deploy_with_every_option(run: Run, api: Api, model: str) -> None:
    options = (
        "--version b --replicas 2..8 --batching fixed --max-batch 16 --batch-delay-ms 2.5 --no-cache --keep-current"
    )
    more = "--input-type float64[4] --python /usr/bin/python3 --memory 2g --start-timeout 5 --json"
    sample = Path(model).with_name("sample.json")
    sample.write_text("[1, 2, 3, 4]")
    result = run(
        "deploy",
        "digits",
        model,
        *options.split(),
        *more.split(),
        "--sample",
        f"@{sample}",
        "--cpus",
        "1.5",
        "--gpus",
        "0,1",
        "--framework",
        "joblib",
        "--output",
        "probabilities",
    )
    assert (result.status, result.json["version"], result.json["state"]) == (0, "b", "ready")
    (deployment,) = api.operations.deployments
    assert deployment.batching == Batching("fixed", 16, 2.5)
    assert (deployment.cache, deployment.make_current, deployment.replicas) == (False, False, ReplicaRange(2, 8))
    assert (deployment.python, deployment.memory_bytes) == ("/usr/bin/python3", 2 * 1024**3)
    assert (deployment.input_type, deployment.start_timeout_s) == ("float64[4]", 5)
    assert (deployment.framework, deployment.output) == ("joblib", "probabilities")
    assert (deployment.sample, deployment.cpus, deployment.gpus) == ([1, 2, 3, 4], 1.5, "0,1")


def test_deploy_in_docker(run: Run, api: Api, model: str) -> None:
    assert run("deploy", "digits", model, "--manager", "docker").status == 0
    assert run("deploy", "sum", "--image", "registry/sum:3").status == 0
    built, given = api.operations.deployments
    assert (built.manager, built.loader, built.target) == ("docker", "file", "digits.joblib")
    assert (given.manager, given.loader, given.target) == ("docker", "image", "registry/sum:3")
    both = run("deploy", "sum", model, "--image", "registry/sum:3")
    assert (both.status, "MODEL or --image" in both.err) == (2, True)


def test_deploy_with_a_range_of_replicas(run: Run, model: str) -> None:
    assert "digits:1 is ready: 2 replicas of 2..8, takes" in run("deploy", "digits", model, "--replicas", "2..8").out


def test_a_version_is_shown_with_its_description(run: Run, model: str) -> None:
    run("deploy", "digits", model, "--description", "trained on May's clicks")
    assert "version 1: trained on May's clicks" in run("model", "show", "digits").out


def test_a_version_that_is_not_current_says_how_to_make_it_so(run: Run, model: str) -> None:
    result = run("deploy", "digits", model, "--keep-current")
    assert "clipper model rollback digits --version 1" in result.out


def test_a_container_that_cannot_start_shows_its_last_lines(run: Run, model: str) -> None:
    result = run("deploy", "broken", model, "--json")
    assert (result.status, result.out) == (1, "")
    assert "error: broken:1 cannot start: its process exited with 1" in result.err
    assert all(line in result.err for line in LOG_TAIL)


def test_what_a_container_or_code_of_a_user_writes_steers_no_terminal(
    run: Run, api: Api, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_operations.LOG_TAIL", ("\x1b]52;c;cm0gLXJm\x07 \x9b2J \u202etxt",))
    failed = run("deploy", "broken", model).err
    assert "\\x1b]52;c;cm0gLXJm" in failed and "\\x9b2J" in failed and "\\u202etxt" in failed
    run("app", "create", "app", "--model", "m")
    broken = msgspec.structs.replace(api.operations.applications["app"], problem="own:P failed: \x1b[2J")
    api.operations.applications["app"] = broken
    shown = run("app", "show", "app").out + run("app", "policy", "app").out
    assert "own:P failed: \\x1b[2J" in shown
    for text in (failed, shown):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)


def test_a_model_that_is_not_there(run: Run) -> None:
    result = run("deploy", "digits", "absent.joblib")
    assert (result.status, result.out) == (1, "")
    assert "cannot read the model file 'absent.joblib'" in result.err


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
    assert "digits asks other:2" in run("app", "link", "digits", "other", "--version", "2").out
    assert run("app", "unlink", "digits", "other", "--json").json["links"] == []
    assert run("app", "delete", "digits").status == 0
    assert "next: clipper app create" in run("app", "list").out


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
    assert "probabilities, calibrated by feedback" in shown

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
    assert run("app", "calibration", "app", "--html", str(tmp_path)).status == 1


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
    linked = run("app", "link", "app", "digits:1")
    assert (
        "asks digits:1, for 10.0% of its queries until feedback has shown its worth: clipper app show app" in linked.out
    )
    assert "10.0%" not in run("app", "link", "app", "digits:2").out
    assert "app sends it 10.0% of its queries until feedback shows its worth" in run("deploy", "digits", model).out


def usage_error(run: Run, arguments: str) -> str:
    """What a command says that is used wrongly, without its frame."""
    wrong = run(*arguments.split())
    assert wrong.status == 2
    return " ".join(wrong.err.replace("│", " ").split())


def test_a_backup_and_its_return_say_what_they_did(bare: Run, tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "backup.tar"
    (home / "artifacts").mkdir(parents=True)
    SqliteRegistry(home / "registry.sqlite3").close()
    written = bare("backup", str(file), "--home", str(home))
    assert (
        written.status == 0
        and f"{home} is in {file}: 0 artifacts" in written.out
        and "without what was learned" in written.out
    )
    again = bare("backup", str(file), "--home", str(home))
    assert again.status == 1 and "exists already" in again.err
    restored = bare("restore", str(file), "--home", str(home))
    assert (
        restored.status == 0 and "the previous files are in" in restored.out and "next: clipper start" in restored.out
    )
    assert bare("restore", str(file), "--home", str(tmp_path / "new"), "--json").json["learned"] is False


def test_the_history_is_shown_as_it_is(run: Run) -> None:
    shown = run("status", "--history")
    assert shown.status == 0
    assert "m:1" in shown.out and "it is ready and current" in shown.out and "it [is] old" in shown.out
    (first, second) = run("status", "--history", "--json").json
    assert first == {"at": 1e9, "subject": "m:1", "text": "it is ready and current"} and second["at"] == 1e9 + 1.5


def test_events(run: Run, api: Api) -> None:
    assert "nothing has happened yet" in run("events").out
    api.operations.happen(
        NewEvent("deployment", "model digits", "version 2 has failed: [bold]\x1b[31mno[/]", "2", "error"),
        NewEvent("application", "application digits", "the application is created"),
        NewEvent("restart", "worker 0", "the worker has ended", level="warning"),
    )
    shown = run("events")
    assert shown.status == 0
    assert "model digits" in shown.out and "version 2 has failed: [bold]\\x1b[31mno[/]" in shown.out
    assert "worker 0" in shown.out and "restart" in shown.out
    assert "worker 0" not in run("events", "--kind", "deployment").out
    assert run("events", "--subject", "worker 0", "--json").json["events"][0]["id"] == 3
    assert [one["id"] for one in run("events", "-n", "2", "--json").json["events"]] == [2, 3]
    wrong = run("events", "--kind", "deploy")
    assert wrong.status == 2 and "'deploy' is not valid: expected" in wrong.err


def test_events_are_followed_while_the_server_is_started_again(
    run: Run, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.operations.happen(NewEvent("server", "server", "the supervisor is started"))
    steps = iter(("new", "away", "away", "back", "end"))

    def pass_time(_: float) -> None:
        step = next(steps)
        api.operations.raises = Unavailable("the server is away") if step == "away" else None
        if step == "end":
            raise KeyboardInterrupt
        if step in ("new", "back"):
            api.operations.happen(NewEvent("key", f"key {step}", "the key is made"))

    monkeypatch.setattr("clipper.cli.events.time", SimpleNamespace(sleep=pass_time))
    followed = run("events", "--follow")
    lines = followed.out.splitlines()
    assert [line.rpartition("  ")[2] for line in lines] == [
        "server: the supervisor is started",
        "key new: the key is made",
        "key back: the key is made",
    ]
    assert followed.err.count("waiting for it") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("app create a --model m --model n --version 1", "NAME:VERSION"),
        ("app create a --model m --policy-parameter eta", "NAME=VALUE"),
        ("app create a --model m --half-life soon", "or none"),
        ("app create a --model m --cost m=much", "or auto"),
        ("app create a --model m --cost m=-1", "at least 0"),
        ("app create a --model m --cost 5", "MODEL=NUMBER"),
        ("app create a --model m --cost m=1e999", "at least 0"),
        ("app create a --model m --cost m=nan", "at least 0"),
        ("app link a m --cost often", "or auto"),
        ("app create a --model m --half-life 1.5", "whole number"),
        ("app update a", "nothing to change"),
        ("app update a --policy-parameter eta=1", "goes with --policy"),
        ("app update a --loss-parameter range=1", "goes with --loss"),
        ("observe a --query-id 1", "--label or --reward"),
        ("observe a --query-id 1 --label 1 --reward 1", "--label or --reward"),
        ("observe a --label 1", "--query-id or --input"),
    ],
)
def test_options_that_do_not_go_together(run: Run, arguments: str, says: str) -> None:
    assert says in usage_error(run, arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("start --docker-transport ucp", "'--docker-transport' (env var: 'CLIPPER_DOCKER_TRANSPORT'): 'ucp' is not"),
        ("start --docker-transport ucp", "'ucp' is not valid: expected unix, tcp"),
        ("deploy a b --framework onxx", "'--framework': 'onxx' is not valid: expected pickle, joblib, onnx"),
        (
            "deploy a b --batching aimb",
            "'--batching': 'aimb' is not valid: expected goodput, aimd, quantile",
        ),
        ("deploy a b --language java", "'--language': 'java' is not valid: expected python, binary, image"),
        ("deploy a b --manager podman", "'--manager': 'podman' is not valid: expected local, docker"),
        ("load a --rate 5 --arrivals poison", "'--arrivals': 'poison' is not valid: expected poisson, constant, burst"),
    ],
)
def test_misspelt_names_are_answered_with_those_that_there_are(run: Run, arguments: str, says: str) -> None:
    assert says in usage_error(run, arguments)


def test_observe(run: Run, api: Api) -> None:
    run("app", "create", "digits")
    assert run("observe", "digits", "--query-id", "1", "--label", '"cat"').out.startswith("learned\n")
    assert "not counted again" in run("observe", "digits", "--query-id", "2", "--reward", "1").out
    by_input = run("observe", "digits", "--input", "[1, 2]", "--label", "3", "--context", "u", "--json")
    assert by_input.json == {"observed": True, "duplicate": False}
    assert api.operations.observed == [
        {"query_id": 1, "label": "cat"},
        {"query_id": 2, "reward": 1.0},
        {"input": [1, 2], "label": 3, "context": "u"},
    ]
    unknown = run("observe", "digits", "--query-id", "404", "--label", "1")
    assert (unknown.status, unknown.out) == (1, "") and "query 404 is not known" in unknown.err


def test_models_and_replicas(run: Run, model: str) -> None:
    run("deploy", "digits", model)
    run("deploy", "digits", model)
    assert run("model", "list", "--json").json[0]["current"] == "2"
    rolled = run("model", "rollback", "digits")
    assert "digits:1 is current" in rolled.out
    assert "goes back to 2" in rolled.out
    assert run("model", "rollback", "digits", "--version", "2", "--json").json["current"] == "2"
    ranged = run("model", "scale", "digits", "1..4").out
    assert "digits:2 has 1 replicas ready; its load decides, within 1..4" in ranged
    shown = run("model", "show", "digits", "--json").json["versions"][1]
    assert (shown["scaling"], shown["scaling_reason"]) == ({"min": 1, "max": 4}, "80 queries/s expected")
    assert "digits:2 has 3 replicas ready\n" in run("model", "scale", "digits", "3").out
    shown = run("model", "show", "digits").out
    assert "3/3" in shown
    assert "float64[4]" in shown
    assert "digits:2#3" in run("replica", "list").out
    assert run("replica", "show", "digits:2#3", "--json").json["version"] == "2"
    assert "ModuleNotFoundError" in run("logs", "digits", "--replica", "digits:2#3", "-n", "1").out
    assert "==> supervisor <==" in run("logs").out
    assert run("logs", "--log", "worker-0", "--json").json["lines"].keys() == {"worker-0"}
    assert run("logs", "digits", "--log", "worker-0").status == 2
    assert run("logs", "--replica", "digits:2#3").status == 2
    assert run("model", "delete", "digits", "--version", "1").status == 0
    assert run("model", "delete", "digits", "--json").json == {"deleted": "digits"}
    assert "next: clipper deploy" in run("model", "list").out


def test_predict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("app", "create", "digits")
    assert run("predict", "digits", "[1, 2]").out == "7\n"
    assert run("predict", "digits", "[1]", "--json", "--version", "1", "--context", "u").json["output"] == 7
    monkeypatch.setattr(sys, "stdin", open_text("[1.5]"))
    assert run("predict", "digits", "-").out == "7\n"
    absent = run("predict", "absent", "[1]")
    assert (absent.status, absent.out) == (1, "")
    assert "no application 'absent'" in absent.err


def open_text(text: str) -> object:
    class Input:
        def read(self) -> str:
            return text

    return Input()


def test_status_by_url(bare: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPPER_HOME", str(api.home / "none"))
    refused = bare("status", "--url", api.url)
    assert refused.status == 1 and "set CLIPPER_TOKEN" in refused.err
    monkeypatch.setenv("CLIPPER_TOKEN", TOKEN)
    result = bare("status", "--url", api.url)
    assert (result.status, result.err) == (0, "")
    assert api.url + "/query" in result.out
    assert bare("status", "--url", api.url, "--json").json["management_url"] == api.url


def test_tokens(run: Run, api: Api) -> None:
    assert "no tokens but the server's own" in run("token", "list").out
    made = run("token", "create", "grafana")
    assert made.out.splitlines()[0] == "clipper_of_grafana"
    assert run("token", "create", "deployer", "--role", "admin", "--json").json["role"] == "admin"
    assert run("token", "create", "x", "--role", "god").status == 2
    listed = run("token", "list").out
    assert re.search(r"grafana +read +2023-11-14 22:13 UTC", listed) and "clipper_of" not in listed
    assert run("token", "revoke", "grafana").status == 0
    assert run("token", "revoke", "grafana").status == 1


def test_the_management_port_is_opened_to_others_only_by_saying_so(run: Run) -> None:
    refused = run("start", "--management-host", "0.0.0.0")
    assert refused.status == 2 and "--insecure" in refused.err


def test_start_when_it_runs_already(run: Run, api: Api) -> None:
    result = run("start")
    assert result.status == 0
    assert f"Clipper is running already (pid {run('status', '--json').json['pid']})" in result.out
    assert api.url in result.out and result.err == ""


def test_start_tells_of_models_that_do_not_come_up(run: Run, api: Api) -> None:
    api.operations.causes = ["application 'a': m:1 has no replica that is ready"]
    result = run("start")
    assert result.status == 0
    assert "warning: some models do not answer: application 'a': m:1 has no replica that is ready" in result.err


def test_serve_when_it_runs_already(run: Run, model: str) -> None:
    result = run("serve", model)
    assert result.status == 1
    assert f"clipper deploy digits {model}" in result.err


def test_serve_with_a_model_that_is_not_there(bare: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = bare("serve", "absent.pkl", "--home", str(home))
    assert (result.status, result.out) == (1, "")
    assert "absent.pkl" in result.err
    assert not home.exists()


def test_no_server(bare: Run, tmp_path: Path) -> None:
    result = bare("status", "--home", str(tmp_path / "nothing"))
    assert (result.status, result.out) == (1, "")
    assert "start it with clipper start" in result.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("deploy digits", "model"),
        ("deploy digits m.pkl --batching clever", "aimd"),
        ("deploy digits m.pkl --replicas 0", "'0'"),
        ("deploy digits m.pkl --replicas 4..1", "4..1"),
        ("model scale digits 1..", "1..4"),
        ("deploy digits m.pkl --memory much", "512m"),
        ("deploy digits m.pkl --sample [1", "JSON"),
        ("deploy digits m.pkl --sample @nowhere.json", "nowhere.json cannot be read"),
        ("app create a --default {", "JSON"),
        ("app create a --version 2", "--model"),
        ("app update a", "--slo-ms"),
        ("predict a nul", "JSON"),
        ("start --workers 0", "workers"),
        ("serve m.pkl --name A/B", "--name"),
        ("load a", "--sweep"),
        ("load a --rate 0", "more than 0"),
        ("load a --rate fast", "queries a second"),
        ("load a --rate nan", "more than 0"),
        ("load a --rate 100001", "100,000"),
        ("load a --rate 5 --duration soon", "10s"),
        ("load a --rate 5 --duration 0s", "more than 0"),
        ("load a --rate 5 --duration 25h", "24h"),
        ("load a --rate 5 --connections 0", "--connections"),
        ("load a --rate 5 --width 3 --inputs f.jsonl", "--inputs sample"),
        ("fly", "fly"),
    ],
)
def test_wrong_usage(bare: Run, line: str, says: str) -> None:
    result = bare(*line.split())
    assert (result.status, result.out) == (2, "")
    assert says in result.err


def test_version(bare: Run) -> None:
    assert bare("--version").out == f"clipper 0.1.0 ({form()})\n"


@pytest.mark.parametrize("kind", ["key", "token"])
def test_a_secret_is_alone_on_standard_output(run: Run, kind: str) -> None:
    made = run(kind, "create", "me")
    assert made.status == 0
    [secret] = made.out.splitlines()
    assert secret.startswith("clipper") and "keep it where nobody else reads it" in made.err


def test_features(run: Run, api: Api) -> None:
    assert run("app", "create", "digits", "--policy", "linucb", "--features", "3").status == 0
    applications = api.operations.applications
    assert applications["digits"].features == 3
    assert "3" in run("app", "show", "digits").out
    for text, features in (("input", "input"), ("none", None), ("64", 64)):
        assert run("app", "update", "digits", "--features", text).status == 0
        assert applications["digits"].features == features
    for wrong in ("output", "2.5", "[1]"):
        assert run("app", "update", "digits", "--features", wrong).status == 2
    assert run("predict", "digits", "[1]", "--features", "[0.5, 2]").out == "7\n"
    run("observe", "digits", "--input", "[1]", "--label", "3", "--features", "[0.5, 2]")
    assert api.operations.observed[-1]["features"] == [0.5, 2]


def test_a_link_to_the_dashboard_logs_in(run: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("dashboard")
    # The link alone, for a pipe; what it is worth is said beside it.
    assert result.out == f"{api.url}/dashboard/#token={TOKEN}\n"
    assert "has the token" in result.err
    assert run("dashboard", "--url", api.url, "--json").json == {"url": f"{api.url}/dashboard/#token={TOKEN}"}
    monkeypatch.setenv("CLIPPER_TOKEN", READ_TOKEN)
    assert READ_TOKEN in run("dashboard").out
    monkeypatch.setenv("CLIPPER_TOKEN", "x" * 40)
    refused = run("dashboard")
    assert (refused.status, refused.out) == (1, "") and "token" in refused.err
