"""The options of a server over its starts, and a server that is replaced while it answers."""

import json
import os
import signal
import stat
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from clipper.base.build import build_id
from clipper.cli.output import Output
from clipper.cli.process import StartingServer, answers, running
from clipper.cli.starting import GivenOptions, replaced
from clipper.client import Clipper
from clipper.errors import DeadlineExceeded
from clipper.settings.home import read_place
from tests.asking import Asking, older_clipper
from tests.certificates import Authority
from tests.cli.commands import CLIPPER, Command, commands, succeed
from tests.ports import keep_port
from tests.supervisor.live_server import builds_of, processes_of
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long

PORTS = ["--query-port", "0", "--management-port", "0", "--grpc-port", "off"]


def status(clipper: Command) -> Any:
    return json.loads(succeed(clipper("status", "--json")))


def option(clipper: Command, name: str) -> tuple[str, str]:
    shown = status(clipper)["options"][name]
    return shown["value"], shown["source"]


def with_sum(clipper: Command, home: Path, *options: str) -> str:
    """A server that answers an application, started with these options; its URL."""
    succeed(clipper("start", *PORTS, *options))
    succeed(clipper("deploy", "sum", "model:Sum", "--no-cache"))
    succeed(clipper("app", "create", "sum", "--model", "sum", "--slo-ms", "20000"))
    return f"{read_place(home).query_url}/sum/predict"


def is_settled(clipper: Command, workers: int) -> bool:
    """Whether no worker has yet to be replaced."""
    now = status(clipper)
    return now["ready"] and len(now["workers"]) == workers and not now["problems"]


def test_a_server_comes_back_as_closed_as_it_was(clipper: Command, home: Path, folder: Path) -> None:
    pair = Authority(folder).issue("server")
    relative = [os.path.relpath(path, folder) for path in (pair.certificate, pair.key)]
    succeed(clipper("start", *PORTS, "--api-keys", "--tls-cert", relative[0], "--tls-key", relative[1]))
    assert stat.S_IMODE((home / "options.json").stat().st_mode) == 0o600
    assert option(clipper, "api-keys") == ("yes", "command line")
    succeed(clipper("stop"))

    elsewhere = commands(home, folder.parent)
    started = succeed(elsewhere("start"))
    assert f"as in the last start: --api-keys --tls-cert {pair.certificate} --tls-key {pair.key}" in started
    now = status(clipper)
    assert now["query_url"].startswith("https://")
    assert {name: now["options"][name]["source"] for name in ("api-keys", "tls-cert", "tls-key", "host")} == {
        "api-keys": "kept", "tls-cert": "kept", "tls-key": "kept", "host": "default",
    }  # fmt: skip
    succeed(clipper("deploy", "sum", "model:Sum"))
    succeed(clipper("app", "create", "sum", "--model", "sum", "--slo-ms", "20000"))
    refused = httpx.post(
        f"{now['query_url']}/sum/predict", json={"input": [1, 2, 3, 4]}, verify=False, timeout=TIMEOUT_S
    )
    assert refused.status_code == 401
    shown = succeed(clipper("status"))
    assert "required (kept)" in shown and f"certificate {pair.certificate} (kept)" in shown
    succeed(clipper("stop"))

    reset = succeed(clipper("start", *PORTS, "--reset-options"))
    assert "not as in the last start: no --api-keys" in reset
    assert option(clipper, "api-keys") == ("no", "default")
    assert status(clipper)["query_url"].startswith("http://")


def test_where_options_come_from(clipper: Command, folder: Path) -> None:
    (folder / "clipper.yaml").write_text("server: {workers: 2, keep_versions: 5, access_log: 0.5}")
    arguments = ["start", *PORTS, "--config", "clipper.yaml", "--keep-versions", "6"]
    succeed(clipper(*arguments, CLIPPER_DOCKER_NETWORK="host"))
    assert option(clipper, "workers") == ("2", "file")
    assert option(clipper, "keep-versions") == ("6", "command line")
    assert option(clipper, "docker-network") == ("host", "environment")
    assert option(clipper, "cache-size")[1] == "default"
    already = clipper("start", "--workers", "3")
    assert already.returncode == 1 and "not with --workers 3" in already.stderr and "clipper restart" in already.stderr
    assert "is running already" in succeed(clipper("start", "--workers", "2"))

    # An option that the file no longer gives returns to its default; options from elsewhere are kept.
    (folder / "clipper.yaml").write_text("server: {workers: 1}")
    restarted = clipper("restart", "--config", "clipper.yaml")
    assert "not as in the last start: --workers 1 (was 2), no --access-log 0.5" in restarted.stderr
    assert option(clipper, "workers") == ("1", "file")
    assert option(clipper, "access-log")[1] == "default"
    assert option(clipper, "keep-versions") == ("6", "kept")
    assert option(clipper, "docker-network") == ("host", "kept")


def test_options_that_cannot_be_used_are_told(clipper: Command, home: Path) -> None:
    home.mkdir()
    kept = home / "options.json"
    kept.write_text("{")
    broken = clipper("start", *PORTS)
    assert (broken.returncode, broken.stdout) == (1, "")
    assert f"{kept}, which keeps the options of the last start, is damaged" in broken.stderr
    assert "--reset-options" in broken.stderr and running(home) is None
    kept.write_text('{"format": 99, "clipper": "9.0.0"}')
    newer = clipper("start", *PORTS)
    assert newer.returncode == 1 and "was written by Clipper 9.0.0, which is newer" in newer.stderr
    succeed(clipper("start", *PORTS, "--reset-options"))
    assert "workers" not in json.loads(kept.read_text())["options"]


def test_a_restart_loses_no_query_and_keeps_what_runs(clipper: Command, home: Path) -> None:
    url = with_sum(clipper, home)
    before, pid = processes_of(home), read_place(home).pid
    with Asking(url, 4) as asking:
        succeed(clipper("restart"))
        assert processes_of(home) == before and read_place(home).pid != pid
        succeed(clipper("restart", "--cache-size", "1m", "--workers", "2"))
        until(lambda: is_settled(clipper, 2))
        assert not before.keys() & {pid for pid, name in processes_of(home).items() if name.startswith("worker")}
    assert len(asking.answers) > 10 and {type(answer) for answer in asking.answers} == {float}
    assert option(clipper, "cache-size") == (str(1024 * 1024), "command line")


def test_a_restart_puts_another_version_in_place(folder: Path, home: Path, tmp_path: Path) -> None:
    old = commands(home, folder, PYTHONPATH=str(older_clipper(tmp_path / "old")))
    new = commands(home, folder)
    url = with_sum(old, home, "--api-keys")
    assert status(new)["version"] == "0.0.9"
    with Clipper.connect(home=home) as client:
        key = client.create_key("asking").key
    with Asking(url, 4, {"Authorization": f"Bearer {key}"}) as asking:
        succeed(new("restart"))
        assert status(new)["version"] != "0.0.9"

        def worker_builds() -> set[str]:
            return {build for name, build in builds_of(home).items() if name.startswith("worker-")}

        until(lambda: worker_builds() == {build_id()} and is_settled(new, 1))
    assert {type(answer) for answer in asking.answers} == {float}
    assert option(new, "api-keys") == ("yes", "kept")


def test_a_restart_that_fails_goes_back_to_what_was(clipper: Command, home: Path) -> None:
    url = with_sum(clipper, home)
    before = processes_of(home)
    with Asking(url, 4) as asking:
        failed = clipper("restart", "--manager", "ray", "--ray-python", "/bin/false", "--workers-per-node", "1")
        assert failed.returncode == 1 and "is started without" in failed.stderr
    assert {type(answer) for answer in asking.answers} == {float}
    assert processes_of(home) == before
    assert option(clipper, "workers-per-node")[1] == "default"
    succeed(clipper("restart"))


def test_a_restart_that_takes_too_long_goes_back_and_what_runs_goes_on(
    clipper: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = with_sum(clipper, home)
    before = processes_of(home)
    monkeypatch.setattr(StartingServer, "wait_until_ready", lambda _: (_ for _ in ()).throw(DeadlineExceeded("late")))
    with Asking(url, 4) as asking, pytest.raises(DeadlineExceeded, match="late"):
        replaced(Output(True), home, GivenOptions({"workers": 2}, {}), reset=False, has_file=False)
    assert {type(answer) for answer in asking.answers} == {float}
    assert before.items() <= processes_of(home).items()
    monkeypatch.undo()
    succeed(clipper("restart", "--reset-options", *PORTS))


def test_a_restart_turns_tls_on_at_the_same_ports(clipper: Command, home: Path, folder: Path) -> None:
    pair = Authority(folder).issue("server")
    with keep_port() as management, keep_port() as queries:
        numbers = [str(kept.getsockname()[1]) for kept in (queries, management)]
        succeed(clipper("start", "--query-port", numbers[0], "--management-port", numbers[1], "--grpc-port", "off"))
    restarted = clipper("restart", *pair.options)
    assert "--tls-cert changes" in restarted.stderr
    assert f"queries at https://127.0.0.1:{numbers[0]}" in succeed(restarted)
    assert option(clipper, "tls-cert") == (str(pair.certificate), "command line")


def test_a_server_in_the_foreground_starts_again_in_its_process(clipper: Command, home: Path) -> None:
    succeed(clipper("start", *PORTS, "--api-keys"))
    succeed(clipper("stop"))
    command = [*CLIPPER, "start", "--foreground", "--home", str(home), *PORTS]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server,
        ExitStack() as stack,
    ):
        stack.callback(server.kill)
        # Its worker's process is not there before it is ready for sure.
        until(lambda: (now := running(home)) is not None and answers(now), failed=lambda: server.poll() is not None)
        # Its command line alone says what it is, and what is missing there is told.
        assert option(clipper, "api-keys") == ("no", "default")
        workers, place = processes_of(home), read_place(home)
        refused = clipper("restart", "--workers", "2")
        assert (
            refused.returncode == 1
            and "clipper start --foreground, whose command line has its options" in refused.stderr
        )
        succeed(clipper("restart"))
        assert read_place(home).pid == place.pid == server.pid and read_place(home).started_at > place.started_at
        assert processes_of(home) == workers
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=200)
    assert server.returncode == 0
    assert "warning: not as in the last start: no --api-keys" in errors


def test_commands_that_start_take_turns(clipper: Command, home: Path) -> None:
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda words: results.append(clipper(*words)), args=(words,))
        for words in (["start", *PORTS], ["start", *PORTS], ["restart", *PORTS], ["restart", *PORTS])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [result.stderr for result in results if result.returncode] == []
    assert len(results) == 4 and len(processes_of(home)) == 1


WAITS = """
import time
from pathlib import Path

class Waits:
    def __init__(self, model_data):
        while not Path({path!r}).exists():
            time.sleep(0.02)

    def predict_batch(self, inputs):
        return [1.0 for _ in inputs]
"""


def test_a_deployment_goes_on_over_a_restart(clipper: Command, home: Path, folder: Path) -> None:
    (folder / "waits.py").write_text(WAITS.format(path=str(folder / "go")))
    results: list[subprocess.CompletedProcess[str]] = []
    with keep_port() as kept:  # commands know the server by its address
        succeed(clipper("start", *PORTS[:2], "--management-port", str(kept.getsockname()[1]), *PORTS[4:]))
    deploying = threading.Thread(target=lambda: results.append(clipper("deploy", "waits", "waits:Waits")))
    deploying.start()
    until(lambda: "waits@1-1" in processes_of(home).values())
    containers = processes_of(home)
    succeed(clipper("restart"))
    assert processes_of(home) == containers
    (folder / "go").touch()
    deploying.join(300)
    assert "waits:1 is ready" in succeed(results[0])


def test_restart_starts_a_server_that_does_not_run(clipper: Command, home: Path) -> None:
    succeed(clipper("restart", *PORTS))
    os.kill(read_place(home).pid, signal.SIGKILL)
    before = processes_of(home)
    succeed(clipper("restart"))
    assert processes_of(home) == before


@pytest.mark.parametrize("command", ["restart", "start"])
def test_a_home_whose_server_kept_no_options_is_not_restarted_with_others(
    clipper: Command, home: Path, command: str
) -> None:
    succeed(clipper("start", *PORTS))
    (home / "options.json").unlink()
    if command == "start":
        assert "is running already" in succeed(clipper("start"))
        return
    refused = clipper("restart")
    assert refused.returncode == 1 and "kept no options" in refused.stderr
    succeed(clipper("restart", "--reset-options", *PORTS))
