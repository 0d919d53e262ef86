"""``clipper start``, ``serve``, ``status``, ``events``, ``backup`` and ``restore``."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from clipper.errors import Unavailable
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.values.types import Caller
from tests.cli.in_process import Run
from tests.conftest import TOKEN, Api


def test_status_by_url(bare: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPPER_HOME", str(api.home / "none"))
    refused = bare("status", "--url", api.url)
    assert refused.status == 1 and "set CLIPPER_TOKEN" in refused.err
    monkeypatch.setenv("CLIPPER_TOKEN", TOKEN)
    result = bare("status", "--url", api.url)
    assert (result.status, result.err) == (0, "")
    assert api.url + "/query" in result.out
    assert bare("status", "--url", api.url, "--json").json["management_url"] == api.url


def test_no_server(bare: Run, tmp_path: Path) -> None:
    result = bare("status", "--home", str(tmp_path / "nothing"))
    assert (result.status, result.out) == (1, "")
    assert "start it with clipper start" in result.err


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
            api.operations.happen(NewEvent("key", f"key {step}", "the key is made", by=Caller("ci", "10.0.0.7")))

    monkeypatch.setattr("clipper.cli.commands.events.time", SimpleNamespace(sleep=pass_time))
    followed = run("events", "--follow")
    lines = followed.out.splitlines()
    assert [line.split("  ")[-2].strip() for line in lines] == [
        "server: the supervisor is started",
        "key new: the key is made",
        "key back: the key is made",
    ]
    assert [line.rpartition("  ")[2] for line in lines] == ["(clipper)", "(ci from 10.0.0.7)", "(ci from 10.0.0.7)"]
    assert (followed.status, followed.err.count("waiting for it")) == (0, 1)


def test_a_backup_and_its_return_say_what_they_did(bare: Run, tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "backup.tar"
    (home / "artifacts").mkdir(parents=True)
    SqliteRegistry(home / "registry.sqlite3").close()
    written = bare("backup", str(file), "--home", str(home))
    assert (
        written.status == 0
        and f"{home} is in {file}: 0 artifacts" in written.out
        and "without the learned state" in written.out
    )
    again = bare("backup", str(file), "--home", str(home))
    assert again.status == 1 and "exists already" in again.err
    restored = bare("restore", str(file), "--home", str(home))
    assert (
        restored.status == 0 and "the previous files are in" in restored.out and "next: clipper start" in restored.out
    )
    assert bare("restore", str(file), "--home", str(tmp_path / "new"), "--json").json["learned"] is False


def test_the_management_port_is_opened_to_others_only_by_saying_so(bare: Run, tmp_path: Path) -> None:
    refused = bare("start", "--management-host", "0.0.0.0", "--home", str(tmp_path / "home"))
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
