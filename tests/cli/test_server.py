"""Commands as a user runs them: real processes, from ``clipper start`` to ``clipper stop``."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clipper.base.processes.proc import start_time
from clipper.cli.process import running
from clipper.client import Clipper, Prediction
from clipper.settings.home import read_place
from tests.cli.commands import CLIPPER, MODEL, Command, succeed
from tests.supervisor.live_server import processes_of
from tests.waiting import TIMEOUT_S, until

SHOP = "https://shop.example"
FREE_PORTS = ["--query-port", "0", "--management-port", "0"]

POLICY = """
from clipper.learning.policies.policy import Choice, Policy

class Fails(Policy):
    def __init__(self, above):
        self.above = above

    def select(self, models, totals, query, random):
        if len(query.context) > self.above:
            raise ValueError("too long")
        return Choice(models[:1], (1.0,))
"""


@pytest.mark.long
def test_from_start_to_stop_and_back(clipper: Command, home: Path) -> None:
    started = succeed(clipper("start", *FREE_PORTS))
    assert "Clipper is running" in started and "gRPC at 127.0.0.1:" in started
    assert "is running already" in succeed(clipper("start", *FREE_PORTS))
    assert "is running already" in succeed(clipper("start"))
    other = clipper("start", "--query-port", "9")
    assert other.returncode == 1 and "and not with --query-port 9: queries at" in other.stderr
    assert "sum:1 is ready" in succeed(clipper("deploy", "sum", "model:Sum"))
    succeed(clipper("app", "create", "sum", "--model", "sum", "--slo-ms", "20000", "--default", "-1"))
    assert succeed(clipper("predict", "sum", "[1, 2, 3, 4]")) == "10.0\n"
    succeed(clipper("deploy", "sum", "model:Sum", "--data", "offset.txt", "--replicas", "2"))
    assert succeed(clipper("predict", "sum", "[1, 2, 3, 4]")) == "110.0\n"
    shown = json.loads(succeed(clipper("model", "show", "sum", "--json")))
    assert (shown["current"], shown["previous"]) == ("2", "1")
    assert [replica["state"] for replica in shown["versions"][1]["replicas"]] == ["ready", "ready"]
    succeed(clipper("model", "rollback", "sum"))
    assert succeed(clipper("predict", "sum", "[1, 2, 3, 4]")) == "10.0\n"
    assert "stopped" in succeed(clipper("stop"))
    assert running(home) is None
    succeed(clipper("start", *FREE_PORTS))
    assert succeed(clipper("predict", "sum", "[1, 2, 3, 4]")) == "10.0\n"
    stopping = running(home)
    assert stopping is not None
    os.kill(stopping.pid, signal.SIGTERM)
    assert "Clipper is running (pid" in succeed(clipper("start", *FREE_PORTS, "--allowed-origin", SHOP))
    assert succeed(clipper("predict", "sum", "[1, 2, 3, 4]")) == "10.0\n"
    asks = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{read_place(home).query_url}/sum/predict", headers=asks, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, SHOP)


@pytest.mark.long
def test_a_policy_of_ones_own_that_fails_is_shown_and_replaced(clipper: Command, home: Path, folder: Path) -> None:
    (folder / "own.py").write_text(POLICY)
    succeed(clipper("start", *FREE_PORTS))
    succeed(clipper("deploy", "sum", "model:Sum"))
    create = "app create app --model sum --slo-ms 20000 --default -1 --policy own:Fails --policy-parameter above=5"
    succeed(clipper(*create.split()))
    # A busy machine imports a policy's code for longer than a change waits; queries get the default meanwhile.
    until(lambda: succeed(clipper("predict", "app", "[1, 2, 3, 4]", "--context", "long")) == "10.0\n")
    failed = succeed(clipper("predict", "app", "[1, 2, 3, 4]", "--context", "a long context"))
    assert failed.startswith("-1\n") and "policy own:Fails failed in select: ValueError: too long" in failed
    assert "ValueError: too long" in succeed(clipper("app", "show", "app"))
    assert "problem: " in succeed(clipper("app", "policy", "app"))

    succeed(clipper("app", "update", "app", "--policy", "exp3"))
    assert json.loads(succeed(clipper("app", "show", "app", "--json")))["problem"] is None
    query = json.loads(succeed(clipper("predict", "app", "[1, 2, 3, 4]", "--context", "a long context", "--json")))
    assert query["output"] == 10.0
    assert succeed(clipper("observe", "app", "--query-id", str(query["query_id"]), "--label", "10")).startswith(
        "learned"
    )
    learned = json.loads(succeed(clipper("app", "policy", "app", "--json")))
    assert (learned["models"][0]["share"], learned["models"][0]["mean_loss"]) == (1.0, 0.0)
    # Neither the worker nor a container has written beside what it imported.
    assert not list((home / "artifacts").rglob("__pycache__"))


def test_a_store_that_cannot_be(clipper: Command) -> None:
    failed = clipper("start", *FREE_PORTS, "--store", "mongodb://host")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "expected sqlite:PATH or redis://HOST:PORT/DB" in failed.stderr


@pytest.mark.long
def test_a_container_that_cannot_start(clipper: Command) -> None:
    succeed(clipper("start", *FREE_PORTS))
    failed = clipper("deploy", "broken", "model:Broken")
    assert (failed.returncode, failed.stdout) == (1, "")
    # In one line, and one about the log, which has what is besides.
    cause, where = failed.stderr.splitlines()
    assert "the weights are for another planet" in cause and "its log has more" in where
    assert "Traceback" in succeed(clipper("logs", "broken"))
    assert json.loads(succeed(clipper("status", "--json")))["ready"] is True


def test_a_server_that_cannot_start_says_why(clipper: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = clipper("start", "--query-port", "0", "--management-port", port)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert port in failed.stderr


def test_a_fitted_estimator_through_the_client(clipper: Command, home: Path) -> None:
    succeed(clipper("start", *FREE_PORTS))
    inputs, labels = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 1.0]]), np.array([0, 1, 0, 1])
    estimator = LogisticRegression().fit(inputs, labels)
    with Clipper.connect(home=home) as client:
        version = client.deploy("sides", estimator)
        client.create_application("sides", model="sides", slo_ms=20_000)
        answers = client.predict_batch("sides", inputs)
    assert version.input_type == "float64[2]"
    assert [answer.output for answer in answers if isinstance(answer, Prediction)] == list(estimator.predict(inputs))


@pytest.mark.long
def test_a_python_object_through_the_client(clipper: Command, home: Path) -> None:
    succeed(clipper("start", *FREE_PORTS))
    scale = 3.0

    def scaled(inputs: list[float]) -> list[float]:
        return [scale * float(row.sum()) for row in inputs]  # type: ignore[attr-defined]

    with Clipper.connect(home=home) as client:
        client.deploy("scaled", scaled, input_type="float64[2]")
        client.create_application("scaled", model="scaled", slo_ms=20_000)
        assert client.predict("scaled", [1.0, 2.0]).output == 9.0
        assert 'clipper_queries_total{application="scaled"' in client.metrics()


@pytest.mark.long
@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_it_is_interrupted(clipper: Command, home: Path, folder: Path, stop_signal: signal.Signals) -> None:
    command = [*CLIPPER, "serve", "model:Sum", "--home", str(home), "--slo-ms", "20000", *FREE_PORTS]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        line = next(text for text in served.stdout if "curl" in text)
        words = shlex.split(line)
        answer = httpx.post(words[1], content=words[words.index("-d") + 1], timeout=TIMEOUT_S)
        assert answer.json()["output"] == 0.0
        pid = read_place(home).pid
        again = clipper("start")
        assert "this server ends with the clipper serve that started it" in again.stderr
        served.send_signal(stop_signal)
        _, errors = served.communicate(timeout=200)
    assert served.returncode == 0, errors
    assert running(home) is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.long
def test_serve_in_the_background_of_a_script_is_stopped_by_sigint(home: Path, folder: Path) -> None:
    """A shell without job control starts what is in the background with SIGINT ignored."""
    command = [*CLIPPER, "serve", "model:Sum", "--home", str(home), "--slo-ms", "20000", *FREE_PORTS]
    script = '"$@" & echo $!; wait $!; echo "ended with $?"'
    with subprocess.Popen(["sh", "-c", script, "sh", *command], cwd=folder, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        served = int(shell.stdout.readline())
        assert any("curl" in text for text in shell.stdout)
        os.kill(served, signal.SIGINT)
        assert [line for line in shell.stdout if "ended" in line] == ["ended with 0\n"]
    assert running(home) is None and not processes_of(home)


@pytest.mark.long
def test_the_server_of_serve_stops_if_serve_is_killed(home: Path, folder: Path) -> None:
    command = [*CLIPPER, "serve", "model:Sum", "--home", str(home), "--slo-ms", "20000", *FREE_PORTS]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as served, ExitStack() as stack:
        stack.callback(served.kill)
        assert served.stdout is not None
        assert any("curl" in text for text in served.stdout)
        # It watches no less after it has started again in its own process.
        subprocess.run([*CLIPPER, "restart", "--home", str(home)], check=True, timeout=200, stdout=subprocess.DEVNULL)
        pid = read_place(home).pid
        served.kill()
        served.wait(TIMEOUT_S)
        until(lambda: not processes_of(home) and start_time(pid) is None)
    log = (home / "logs" / "supervisor.log").read_text()
    assert "the command that runs this server has ended" in log and log.rstrip().endswith("stopped")
    assert not (home / "options.json").exists()


@pytest.mark.long
def test_serve_again_what_was_edited(home: Path, folder: Path) -> None:
    line = "self.offset = float(open(model_data).read()) if model_data else 0.0"
    assert line in MODEL
    command = [*CLIPPER, "serve", "model:Sum", "--reload", "--home", str(home), "--slo-ms", "20000", *FREE_PORTS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) as served, ExitStack() as stack:
        stack.callback(served.kill)  # if the test fails, nobody else ends it
        assert served.stdout is not None and served.stderr is not None
        next(text for text in served.stdout if "curl" in text)
        (folder / "model.py").write_text(MODEL.replace(line, "raise RuntimeError('moved')"))
        kept = "warning: model:1 keeps serving until a file changes again\n"
        told = "".join(iter(served.stderr.readline, kept))
        assert "model:2 cannot start" in told and "moved" in told
        with Clipper.connect(home=home) as client:
            assert client.predict("model", [1, 2, 3, 4]).output == 10
            (folder / "model.py").write_text(MODEL.replace(line, "self.offset = 7.0"))
            assert next(text for text in served.stdout if "is served" in text) == "model:3 is served\n"
            assert client.predict("model", [1, 2, 3, 4]).output == 17
        served.send_signal(signal.SIGINT)
        _, errors = served.communicate(timeout=200)
        assert served.returncode == 0, errors
    assert running(home) is None


def test_in_the_foreground_the_command_is_the_server(clipper: Command, home: Path) -> None:
    command = [*CLIPPER, "start", "--foreground", "--home", str(home), *FREE_PORTS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        until(lambda: running(home) is not None)
        assert json.loads(succeed(clipper("status", "--json")))["pid"] == server.pid
        server.terminate()
        _, errors = server.communicate(timeout=200)
    assert server.returncode == 0, errors


@pytest.mark.long
def test_a_second_stop_ends_the_drain_delay(clipper: Command, home: Path) -> None:
    succeed(clipper("start", *FREE_PORTS, "--drain-delay", "600"))
    with Clipper.connect(home=home) as client:
        assert client.stop(wait=False).drain_delay_s == 600
    succeed(clipper("stop"))
    assert running(home) is None


@pytest.mark.long
def test_serve_a_model_that_cannot_start(clipper: Command, home: Path) -> None:
    failed = clipper("serve", "model:Broken", *FREE_PORTS)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert re.search("another planet", failed.stderr)
    assert running(home) is None
