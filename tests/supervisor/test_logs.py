"""Logs and traces of a whole server, as its operator sets and sees them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.client import Clipper
from tests.otlp_receiver import otlp_receiver
from tests.supervisor.live_server import Server, with_application
from tests.waiting import until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--log-format=json", "--log-level=warning", "--access-log=1", "--slow-query-ms=0"]
    server = Server(tmp_path_factory.mktemp("logs") / "home", *options)
    try:
        yield with_application(server)
    finally:
        server.clean_up()


def follow(server: Server, *words: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).parent / "clipper"), "logs", "--home", str(server.home), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_the_servers_own_logs_are_shown(shared: Server) -> None:
    shared.predict("app", [1, 2])
    names = {"supervisor", "worker-0", "access-0", "slow-0"}
    until(lambda: shared.call("GET", "/logs")["lines"].keys() == names)
    until(lambda: shared.call("GET", "/logs?name=access-0&lines=1")["lines"]["access-0"])
    (line,) = shared.call("GET", "/logs?name=access-0&lines=1")["lines"]["access-0"]
    assert json.loads(line)["application"] == "app"
    assert "expected one of access-0, slow-0, supervisor, worker-0" in shared.ask("GET", "/logs?name=m@1-1").text
    shared.call("GET", "/logs?name=..%2Ftoken", status=404)


def test_records_below_the_level_are_not_written(shared: Server) -> None:
    lines = [*shared.log.splitlines(), *(shared.home / "logs" / "worker-0.log").read_text().splitlines()]
    # A busy machine warns of a worker that takes over a second to answer.
    assert {json.loads(line)["level"] for line in lines} <= {"warning"}


def test_what_was_written_since(shared: Server) -> None:
    before = shared.call("GET", "/logs?name=access-0")["places"]["access-0"]
    shared.predict("app", [3, 4])
    until(lambda: shared.call("GET", f"/logs?name=access-0&after=access-0={before}")["lines"]["access-0"])
    assert len(shared.call("GET", f"/logs?name=access-0&after=access-0={before}")["lines"]["access-0"]) == 1
    shared.call("GET", "/logs?name=access-0&after=access-0=nonsense", status=400)


def test_logs_are_followed(shared: Server) -> None:
    model, own = follow(shared, "m", "-f"), follow(shared, "--log", "slow-0", "-f", "--json", "-n", "1")
    assert model.stdout is not None and own.stdout is not None
    try:
        assert model.stdout.readline() == "==> m:1#1 <==\n"
        with (shared.home / "logs" / "m@1-1.log").open("a") as log:
            log.write("a line of its own\n")
        while model.stdout.readline() != "a line of its own\n":
            pass
        first = json.loads(own.stdout.readline())
        shared.predict("app", [5, 6])
        second = json.loads(own.stdout.readline())
        assert first["log"] == second["log"] == "slow-0"
        assert json.loads(first["line"])["query_id"] != json.loads(second["line"])["query_id"]
    finally:
        for process in (model, own):
            process.kill()
            process.communicate()


def test_containers_log_as_the_server_does_and_models_as_they_like(shared: Server) -> None:
    code = "import sys\nprint('from the model')\nprint('{\"time\": 1}', file=sys.stderr)\n"
    failed = shared.deploy("broken", code + "raise ValueError('né')", input_type="float64[2]")
    why = "module my_model cannot be loaded: ValueError: né"
    assert failed["state"] == "failed" and failed["last_error"].endswith(f"before it was ready: {why}")
    # The failure shows the lines that a log in text has.
    assert failed["log_tail"][-2:] == ["ValueError: né", f"clipper: {why}"] and len(failed["log_tail"]) == 20
    printed, odd, last = (shared.home / "logs" / "broken@1-1.log").read_text().splitlines()
    assert (printed, odd) == ("from the model", '{"time": 1}')
    said = json.loads(last)
    assert (said["level"], said["logger"], said["message"]) == ("critical", "clipper.runtime", why)
    assert (said["model"], said["version"], said["exception"][:9]) == ("broken", "1", "Traceback")
    assert said["replica"].startswith("broken:1#1.g")
    good = [json.loads(line) for line in (shared.home / "logs" / "m@1-1.log").read_text().splitlines() if "{" in line]
    assert "listening on" in good[-1]["message"] and good[-1]["model"] == "m" and good[-1]["address"][:5] == "unix:"
    shown = follow(shared, "broken")
    text, _ = shown.communicate()
    assert text.splitlines() == ["==> broken:1#1 <==", printed, odd, last]


@pytest.mark.long
def test_a_receiver_that_is_away_is_a_problem_of_a_server_that_is_ready(server: Server) -> None:
    with otlp_receiver() as receiver:
        receiver.status = 400
        with_application(server.with_options(f"--otlp-endpoint={receiver.url}", "--trace-share=1"))
        server.predict("app", [1, 2])
        until(lambda: "cannot send spans" in "".join(server.call("GET", "/status")["problems"]))
        assert server.call("GET", "/status")["ready"]
        receiver.status = 200
        server.predict("app", [1, 2])
        until(lambda: receiver.named("query app"))
        until(lambda: server.call("GET", "/status")["problems"] == [])
        assert 'clipper_spans_exported_total{worker="0"}' in server.metrics
        assert 'clipper_spans_dropped_total{worker="0",reason="export_failed"}' in server.metrics
        assert server.stop() == 0


def test_access_lines_name_the_key_and_never_show_it(shared: Server) -> None:
    key = shared.call("POST", "/keys", {"name": "web"})["key"]
    shared.call("PATCH", "/applications/app", {"require_key": True})
    path = shared.home / "logs" / "access-0.log"
    before = len(path.read_text().splitlines())
    with Clipper.connect(home=shared.home, api_key=key) as clipper:
        for number in range(3):  # the first request's head is known to the next ones
            clipper.predict("app", [number, 0])
    shared.call("PATCH", "/applications/app", {"require_key": False})

    def named() -> list[str]:
        lines = map(json.loads, path.read_text().splitlines()[before:])
        return [line.get("key") for line in lines if line["path"] == "/app/predict"]

    # Lines of queries before may come later than they.
    until(lambda: named()[-3:] == ["web"] * 3)
    assert key not in path.read_text()
