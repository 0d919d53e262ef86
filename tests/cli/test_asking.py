"""``clipper predict``, ``observe``, ``model``, ``replica`` and ``logs``."""

import sys

import msgspec
import pytest

from tests.cli.in_process import Run
from tests.conftest import Api


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


def test_a_rollback_to_a_stopped_version_says_why_it_was_and_asks(run: Run, api: Api, model: str) -> None:
    run("deploy", "digits", model)
    run("deploy", "digits", model)
    versions, why = api.operations.versions["digits"], "application 'app': it lost more"
    versions["1"] = msgspec.structs.replace(versions["1"], stopped=why)
    assert f"version 1 was stopped: {why}" in run("model", "show", "digits").out
    refused = run("model", "rollback", "digits", "--to", "1")
    assert refused.status == 1 and f"warning: digits:1 was stopped ({why})" in refused.err and "--yes" in refused.err
    assert api.operations.current["digits"] == "2"
    done = run("model", "rollback", "digits", "--to", "1", "--yes")
    assert why in done.err and "digits:1 is current" in done.out


def test_models_and_replicas(run: Run, model: str) -> None:
    run("deploy", "digits", model)
    run("deploy", "digits", model)
    assert run("model", "list", "--json").json[0]["current"] == "2"
    rolled = run("model", "rollback", "digits")
    assert "digits:1 is current" in rolled.out
    assert "goes back to 2" in rolled.out
    assert run("model", "rollback", "digits", "--version", "2", "--json").json["current"] == "2"
    assert run("model", "rollback", "digits", "--to", "2", "--json").json["current"] == "2"
    # As lists show it.
    assert run("model", "rollback", "digits:2", "--json").json["current"] == "2"
    assert run("model", "show", "digits:1", "--json").json["version"] == "1"
    assert run("model", "scale", "digits:1", "2", "--json").json["version"] == "1"
    twice = run("model", "delete", "digits:1", "--version", "2")
    assert twice.status == 2 and "names a version already" in twice.err
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
    assert run("logs", "digits:2#3", "--json").json == run("logs", "digits", "--replica", "digits:2#3", "--json").json
    assert "==> supervisor <==" in run("logs").out
    assert run("logs", "--log", "worker-0", "--json").json["lines"].keys() == {"worker-0"}
    assert run("logs", "digits", "--log", "worker-0").status == 2
    assert run("logs", "--replica", "digits:2#3").status == 2
    assert run("model", "delete", "digits", "--version", "1").status == 0
    assert run("model", "delete", "digits", "--json").json == {"deleted": "digits"}
    assert "next: clipper deploy" in run("model", "list").out
