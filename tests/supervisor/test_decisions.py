"""The decision log through a whole server: queries, feedback at once and later, workers that die, disks that refuse."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from clipper.cli.main import cli
from tests.supervisor.live_server import NO_TLS, Server, answering
from tests.supervisor.three_models import MODELS, ROW, with_application, with_models
from tests.waiting import TIMEOUT_S, until

LOGGED = {"log_decisions": 1.0, "default_output": "none"}


def exported(server: Server, *options: str) -> list[dict[str, Any]]:
    output = server.home / "out.jsonl"
    result = CliRunner().invoke(
        cli, ["log", "export", "--home", str(server.home), "--output", str(output), "--json", *options]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert json.loads(result.stdout)["queries"] == len(rows)
    return rows


def until_exported(server: Server, count: int) -> dict[int, dict[str, Any]]:
    """By query id, once so many are on disk."""

    def found() -> list[dict[str, Any]] | None:
        rows = exported(server)
        return rows if len(rows) >= count else None

    rows = until(found)
    assert len(rows) == count
    return {row["query_id"]: row for row in rows}


def until_judged(server: Server, count: int) -> None:
    until(lambda: sum(row["feedback_count"] for row in exported(server)) == count)


def kill_workers(server: Server) -> None:
    """Return when there are others, which serve."""
    workers = server.kill_workers()
    until(lambda: metric(server, "clipper_link_state{") == 3 * len(workers))


def metric(server: Server, name: str, label: str = "") -> float:
    lines = [line for line in server.metrics.splitlines() if line.startswith(name) and label in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.long
def test_queries_and_feedback_are_exported_also_if_too_late_to_be_learned(server: Server) -> None:
    with_application(server, policy="epsilon_greedy", feedback_ttl_s=600, **LOGGED)
    ids = [server.predict("app", ROW, context="me")["query_id"] for _ in range(20)]
    pinned = server.predict("app", ROW, version="1")["query_id"]
    for id_ in ids[:5]:
        assert server.observe("app", query_id=id_, label=2).status_code == 200
    server.call("PATCH", "/applications/app", {"feedback_ttl_s": 0.001})
    late = server.observe("app", query_id=ids[6], label=3)
    assert late.status_code == 404 and "the decision log has it" in late.json()["cause"]
    # Of ids that nobody can have been given there is nothing to keep.
    for unknown in (-1, 2**53, 10**40):
        answer = server.observe("app", query_id=unknown, label=3)
        assert answer.status_code == 404 and "decision log" not in answer.json()["cause"]
    assert server.stop() == 0
    rows = {row["query_id"]: row for row in exported(server)}
    assert rows.keys() == {*ids, pinned}
    for id_ in ids:
        row = rows[id_]
        (model,) = row["models"]
        assert row["output"] == MODELS[model] and row["outputs"] == {model: MODELS[model]}
        assert (row["application"], row["policy"], row["context"]) == ("app", "epsilon_greedy", "me")
        assert row["candidates"] == list(MODELS) and row["candidate_versions"] == ["1", "1", "1"]
        assert 0 < row["shares"][0] < 1 and row["latency_ms"] > 0 and row["reason"] is None
    for id_ in ids[:5]:
        (model,) = rows[id_]["models"]
        assert rows[id_]["losses"] == {model: float(model != "two")}
        assert (rows[id_]["loss"], rows[id_]["label"], rows[id_]["learned"]) == (float(model != "two"), 2, True)
    assert (rows[ids[6]]["label"], rows[ids[6]]["learned"], rows[ids[6]]["losses"]) == (3, False, None)
    assert rows[ids[7]]["label"] is None and rows[ids[7]]["feedback_count"] == 0
    assert rows[pinned]["pinned"] == "1" and rows[ids[0]]["pinned"] is None


@pytest.mark.long
def test_all_that_was_written_survives_workers_that_are_killed(server: Server) -> None:
    with_application(server, "--workers", "2", policy="thompson", **LOGGED)
    ids, judged = [], []
    for _ in range(3):
        for _ in range(20):
            answer = server.predict("app", ROW)
            assert answer["default"] is False
            ids.append(answer["query_id"])
        some = ids[-3:]
        for id_ in some:
            assert server.observe("app", query_id=id_, label=1).status_code == 200
        judged += some
        until_exported(server, len(ids))
        until_judged(server, len(judged))
        kill_workers(server)
    rows = until_exported(server, len(ids))
    assert rows.keys() == set(ids)
    assert {id_ for id_, row in rows.items() if row["losses"]} == set(judged)
    assert all(row["shares"] == [None] and len(row["beliefs"]) == 3 for row in rows.values())
    assert len(list((server.home / "decisions").iterdir())) >= 3


def test_a_log_that_cannot_be_written_costs_no_query_and_says_so(server: Server) -> None:
    with_application(server, policy="single", **LOGGED)
    folder = server.home / "decisions"
    # A file where the folder should be; that a folder is read-only does not keep root from writing.
    folder.write_text("")
    for _ in range(5):
        assert server.predict("app", ROW)["output"] == 1
    status = until(lambda: (now := server.call("GET", "/status"))["problems"] and now)
    assert status["ready"] and "worker 0 cannot write the decision log: FileExistsError" in status["problems"][0]
    # They may go to the disk in two parts.
    until(lambda: metric(server, "clipper_decisions_dropped_total", 'reason="write_failed"') == 5)
    folder.unlink()
    id_ = server.predict("app", ROW)["query_id"]
    assert until_exported(server, 1).keys() == {id_}
    # It is on the disk before the worker counts it.
    until(lambda: metric(server, "clipper_decisions_written_total") == 1)
    assert server.call("GET", "/status")["problems"] == []


def test_errors_defaults_and_their_reasons_are_there(server: Server) -> None:
    server.start()
    fails = "def predict(inputs): raise ValueError('no')\n"
    assert server.deploy("bad", fails, input_type="float64[2]")["state"] == "ready"
    app: dict[str, Any] = {"name": "app", "slo_ms": 20_000, "links": [{"model": "bad"}]}
    answer = server.call("POST", "/applications", app | {"log_decisions": 1.5}, status=400)
    assert "log_decisions is 1.5" in answer["cause"]
    server.call("POST", "/applications", app)
    # Nothing is logged unless it is asked for.
    assert server.predict("app", ROW)["error"] == "model_error"
    server.call("PATCH", "/applications/app", {"log_decisions": 1})
    assert server.predict("app", ROW)["error"] == "model_error"
    server.call("PATCH", "/applications/app", {"default_output": {"none": True}})
    assert server.predict("app", ROW)["default"] is True
    error, default = until_exported(server, 2).values()
    assert (error["reason"], error["default"], error["output"]) == ("model_error", False, None)
    assert (default["reason"], default["default"], default["output"]) == ("model_error", True, {"none": True})
    assert default["outputs"] == {}


def test_a_long_output_is_cut(server: Server) -> None:
    server.start()
    assert server.deploy("long", answering("ä" * 150_000), input_type="float64[2]")["state"] == "ready"
    app = {"name": "app", "slo_ms": 60_000, "links": [{"model": "long"}], "log_decisions": 1}
    server.call("POST", "/applications", app)
    answer = server.predict("app", ROW)
    assert len(answer["output"]) == 150_000
    assert server.observe("app", query_id=answer["query_id"], label="ä" * 5_000).is_success
    until(lambda: metric(server, "clipper_decisions_written_total") == 2)
    (row,) = exported(server)
    assert row["is_cut"] and row["label"] is None and row["loss"] == 1.0
    assert len(row["output"].encode()) <= 4100 and row["output"].startswith('"\\u00e4')
    assert sum(path.stat().st_size for path in (server.home / "decisions").iterdir()) < 20_000


@pytest.mark.long
def test_a_share_of_the_queries_is_logged_and_feedback_on_others_is_not(server: Server) -> None:
    with_models(server)
    links = [{"model": model} for model in MODELS]
    server.call(
        "POST",
        "/applications",
        {"name": "app", "slo_ms": 20_000, "links": links, "policy": "exp3", "log_decisions": 0.25},
    )
    ids = [server.predict("app", ROW)["query_id"] for _ in range(80)]
    for id_ in ids:
        server.observe("app", query_id=id_, label=1)
    assert server.stop() == 0
    rows = exported(server)
    assert 15 <= len(rows) <= 25
    assert all(row["feedback_count"] == 1 for row in rows)
    # None is left that joins nothing.
    assert Counter(row["query_id"] for row in rows).keys() <= set(ids)


@pytest.mark.long
def test_another_policys_loss_is_answered_from_a_servers_log(server: Server) -> None:
    """Each model answers its number, and 2 is right: three truths that are known."""
    with_application(server, policy={"name": "epsilon_greedy", "parameters": {"epsilon": 1.0}}, **LOGGED)
    with httpx.Client(base_url=server.place.query_url, verify=NO_TLS, timeout=TIMEOUT_S) as client:
        ids = [client.post("/app/predict", json={"input": ROW}).json()["query_id"] for _ in range(600)]
        observations = [{"query_id": id_, "label": 2} for id_ in ids[:500]]
        assert client.post("/app/observe", json={"observations": observations}).is_success
        # Too late for the policy, and scored from what was logged.
        server.call("PATCH", "/applications/app", {"feedback_ttl_s": 0.001})
        for id_ in ids[500:550]:
            assert client.post("/app/observe", json={"query_id": id_, "label": 2}).status_code == 404
    assert server.stop() == 0

    def ask(*options: str) -> dict[str, Any]:
        result = CliRunner().invoke(cli, ["app", "whatif", "app", "--home", str(server.home), "--json", *options])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    report = ask()
    assert (report["queries"], report["left_out"]) == (550, {"no feedback has come": 50})
    assert report["as_it_was"]["value"] == pytest.approx(2 / 3, abs=0.1)
    truths = {"always one": 1.0, "always two": 0.0, "always three": 1.0}
    for answer in report["answers"]:
        assert answer["snips"]["value"] == truths[answer["target"]]
        assert [warning[:10] for warning in answer["warnings"]] == ["nearly all"]
    (learned,) = ask("--policy", "thompson")["answers"]
    # All feedback came after all queries, so that nothing was known at any of them.
    assert learned["snips"]["value"] == pytest.approx(2 / 3, abs=0.1)
    (among,) = ask("--policy", "thompson", "--model", "one", "--model", "three")["answers"]
    assert among["snips"]["value"] == 1.0
    for options, why in (
        (["--model", "four"], "four could not be chosen"),
        (["--policy", "mine:Mine"], "is not a policy of Clipper's"),
        (["--policy", "ensemble"], "several models together"),
        (["--since", "1s", "--until", "2000-01-01"], "no query of this application whose loss is known"),
    ):
        failed = CliRunner().invoke(cli, ["app", "whatif", "app", "--home", str(server.home), *options])
        assert failed.exit_code == 1 and why in failed.output, options


@pytest.mark.long
def test_the_named_value_of_outputs_is_judged_everywhere(server: Server) -> None:
    """In what is learned at once, in feedback that comes too late for that, and in what another policy would lose."""
    server.start()
    for name in ("left", "right"):
        code = answering({"size": 1.5, "kind": name})
        assert server.deploy(name, code, input_type="float64[2]")["state"] == "ready"
    policy = {"name": "epsilon_greedy", "parameters": {"epsilon": 1.0}}
    links = [{"model": "left"}, {"model": "right"}]
    app = {
        "name": "app",
        "slo_ms": 20_000,
        "links": links,
        "policy": policy,
        "label_field": "kind",
        "log_decisions": 1.0,
    }
    server.call("POST", "/applications", app)
    answers = [server.predict("app", ROW) for _ in range(60)]
    for answer in answers[:30]:
        assert server.observe("app", query_id=answer["query_id"], label="left").status_code == 200
    server.call("PATCH", "/applications/app", {"feedback_ttl_s": 0.001})
    for answer in answers[30:]:
        assert server.observe("app", query_id=answer["query_id"], label="left").status_code == 404
    assert server.stop() == 0
    rows = {row["query_id"]: row for row in exported(server)}
    for number, answer in enumerate(answers):
        row, (model,) = rows[answer["query_id"]], rows[answer["query_id"]]["models"]
        assert row["output"] == answer["output"] == {"size": 1.5, "kind": model}
        assert (row["label"], row["learned"]) == ("left", number < 30)
        assert not row["learned"] or row["losses"][model] == float(model != "left")
    result = CliRunner().invoke(cli, ["app", "whatif", "app", "--home", str(server.home), "--json"])
    report = json.loads(result.stdout)
    assert (report["queries"], report["left_out"]) == (60, {})
    values = {each["target"]: each["snips"]["value"] for each in report["answers"]}
    assert values == {"always left": 0.0, "always right": 1.0}


@pytest.mark.long
def test_kept_inputs_become_a_training_set_without_redacted_fields(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    server.start()
    says = "{'label': bool(age > 40), 'mail': mail}"
    code = f"def predict(rows): return [{says} for age, mail in zip(rows['age'], rows['mail'])]\n"
    assert server.deploy("m", code, input_type="age: float64, mail: string, job: string?")["state"] == "ready"
    app: dict[str, Any] = {"name": "app", "slo_ms": 20_000, "links": [{"model": "m"}], "log_inputs": "sampled"}
    answer = server.call("POST", "/applications", app, status=400)
    assert "no query is logged: expected log_decisions (--log-decisions) above 0" in answer["cause"]
    server.call("POST", "/applications", app | {"log_decisions": 1, "redact": "mail"})
    answer = server.call("PATCH", "/applications/app", {"log_decisions": 0}, status=400)
    assert "log_inputs off" in answer["cause"]
    # Queries from before inputs were kept stay in the log, and are in no training set.
    server.call("PATCH", "/applications/app", {"log_inputs": "off"})
    before = server.predict("app", {"age": 1, "mail": "secret@example.com"})["query_id"]
    server.call("PATCH", "/applications/app", {"log_inputs": "sampled"})
    ids = []
    for age in (30, 50):
        answer = server.predict("app", {"age": age, "mail": "secret@example.com", "job": None})
        assert answer["output"] == {"label": age > 40, "mail": "secret@example.com"}
        ids.append(answer["query_id"])
    label = {"label": True, "mail": "secret@example.com"}
    assert server.observe("app", query_id=ids[0], label=label).is_success
    assert server.stop() == 0
    assert all(b"secret" not in path.read_bytes() for path in (server.home / "decisions").iterdir())

    rows = {row["query_id"]: row for row in exported(server)}
    assert rows.keys() == {before, *ids} and all("input" not in row for row in rows.values())
    assert [rows[id_]["output"] for id_ in ids] == [{"label": False}, {"label": True}]
    rows = {row["query_id"]: row for row in exported(server, "--app", "app", "--with-inputs")}
    assert rows.keys() == set(ids) and before not in ids
    assert [rows[id_]["input"] for id_ in ids] == [{"age": 30.0, "job": None}, {"age": 50.0, "job": None}]
    output = server.home / "train.parquet"
    told = CliRunner().invoke(
        cli,
        ["log", "export", "--home", str(server.home), "--app", "app", "--with-inputs", "--output", str(output)],
    )
    assert told.exit_code == 0 and "left out, 1: their inputs were not kept" in told.output
    table = pq.read_table(output)
    assert [name for name in table.column_names if name.startswith(("input", "output."))] == [
        "output.label",
        "input.age",
        "input.job",
    ]
    assert str(table.schema.field("input.age").type) == "double"
    columns = [table[name].to_pylist() for name in ("input.age", "output.label", "label")]
    assert sorted(zip(*columns)) == [(30.0, "false", '{"label":true}'), (50.0, "true", None)]
    # As docs/decision-log.md reads it.
    page = (Path(__file__).parents[2] / "docs" / "decision-log.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(server.home)
    read: dict[str, Any] = {}
    exec(program, read)
    assert read["inputs"]["input.age"].tolist() == [30.0] and read["inputs"]["input.job"].isna().all()
    assert read["labels"].tolist() == [{"label": True}]
    without_app = ["log", "export", "--home", str(server.home), "--with-inputs", "--output", "x.jsonl"]
    failed = CliRunner().invoke(cli, without_app)
    assert failed.exit_code == 2 and "--with-inputs needs --app" in failed.output
