"""``clipper deploy``."""

import json
from pathlib import Path

import msgspec
import pytest

from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching
from tests.cli.in_process import Run
from tests.conftest import Api
from tests.memory_operations import LOG_TAIL


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
    assert "crash_loop" in (listed := run("model", "list").out) and "0/1" in listed
    assert run("replica", "list").out.splitlines()[-1] == "digits:1#1: it exited with 3"


def test_a_model_without_a_current_version_is_listed_as_its_newest_is(run: Run, api: Api, model: str) -> None:
    run("deploy", "digits", model)
    versions = api.operations.versions["digits"]
    versions["1"] = msgspec.structs.replace(versions["1"], current=False, state="failed", condition="failed")
    assert "failed" in run("model", "list").out


def test_deploy_with_every_option(run: Run, api: Api, model: str) -> None:
    options = (
        "--version b --replicas 2..8 --batching fixed --max-batch 16 --batch-delay-ms 2.5 --no-cache --keep-current"
    )
    more = "--input-type float64[4] --python /usr/bin/python3 --memory 2g --start-timeout 5 --json"
    sample = Path(model).with_name("sample.json")
    sample.write_text("[1, 2, 3, 4]")
    variables = Path(model).with_name("variables.env")
    variables.write_text("# of the file\nLEVEL=of the file\nREGION=north\n")
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
        "--resources",
        "ssd=1,tpu=0.5",
        "--placement",
        "pack,zone=a",
        "--framework",
        "joblib",
        "--output",
        "probabilities",
        "--env",
        "LEVEL=a=b,c",
        "--env-file",
        str(variables),
        "--env",
        "EMPTY=",
        "--secret",
        "KEY",
        "--secret",
        "TOKEN=db.token",
    )
    assert (result.status, result.json["version"], result.json["state"]) == (0, "b", "ready")
    (deployment,) = api.operations.deployments
    assert deployment.batching == Batching("fixed", 16, 2.5)
    assert (deployment.cache, deployment.make_current, deployment.replicas) == (False, False, ReplicaRange(2, 8))
    assert (deployment.python, deployment.memory_bytes) == ("/usr/bin/python3", 2 * 1024**3)
    assert (deployment.input_type, deployment.start_timeout_s) == ("float64[4]", 5)
    assert (deployment.framework, deployment.output) == ("joblib", "probabilities")
    assert (deployment.sample, deployment.cpus, deployment.gpus) == ([1, 2, 3, 4], 1.5, "0,1")
    assert (deployment.resources, deployment.placement) == ({"ssd": 1.0, "tpu": 0.5}, "pack,zone=a")
    assert deployment.env == {"LEVEL": "a=b,c", "REGION": "north", "EMPTY": ""}
    assert deployment.secrets == ("KEY", "TOKEN=db.token")


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
    assert "clipper model rollback digits --to 1" in result.out


def test_a_container_that_cannot_start_shows_its_last_lines(run: Run, model: str) -> None:
    result = run("deploy", "broken", model, "--json")
    assert (result.status, result.out) == (1, "")
    told = json.loads(result.err)
    assert told["error"] == "container_failed" and told["log_tail"] == list(LOG_TAIL)
    assert told["message"] == "broken:1 cannot start: its process exited with 1"
    shown = run("deploy", "broken", model).err
    assert "error: broken:2 cannot start: its process exited with 1" in shown
    assert all(line in shown for line in LOG_TAIL)


def test_what_a_container_or_code_of_a_user_writes_steers_no_terminal(
    run: Run, api: Api, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.memory_operations.LOG_TAIL", ("\x1b]52;c;cm0gLXJm\x07 \x9b2J \u202etxt",))
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
    assert "the model file 'absent.joblib' cannot be read" in result.err


def test_an_argument_that_is_no_utf8_is_told(run: Run, model: str) -> None:
    found = run("deploy", "digits", model, "--env", "A=\udcff\udcfe")
    assert (found.status, "expected text in UTF-8" in found.err) == (1, True), found.err
