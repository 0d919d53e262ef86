"""``clipper load`` as a user runs it, against a real server: what it finds, and what it says when things go wrong."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.cli.main import main
from clipper.client import Clipper
from tests.cli.commands import CLIPPER
from tests.supervisor.live_server import Server
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long

MODEL = """
import time

def predict(inputs):
    return [float(sum(row)) for row in inputs]

def slow(inputs):
    time.sleep(2.0 * len(inputs))
    return [len(row) for row in inputs]
"""


# On a busy machine a sender may not run for longer than a query may be behind.
PATIENT = "from clipper.cli.load import sender; sender.MAX_BEHIND_S = 1e9; "


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server with an application that keeps its SLO and one that cannot, and one of texts."""
    server = Server(tmp_path_factory.mktemp("load") / "home")
    try:
        server.start()
        server.deploy("sum", MODEL, input_type="float64[4]")
        server.deploy("slow", MODEL, input_type="string", target="my_model:slow", cache=False)
        with Clipper.connect(home=server.home) as clipper:
            clipper.create_application("sum", model="sum", slo_ms=20_000, default_output=-1)
            clipper.create_application("slow", model="slow", slo_ms=50, default_output=-1)
            clipper.create_application("none", model="slow", slo_ms=50)
        yield server.home
    finally:
        server.clean_up()


def start(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PATIENT + CLIPPER[-1], "load", *arguments, "--home", str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def load(home: Path, *arguments: str) -> tuple[int, str, str]:
    return end(start(home, *arguments))


def measured(home: Path, *arguments: str) -> Any:
    status, out, err = load(home, *arguments, "--json", "-")
    assert status == 0, err
    return json.loads(out)


Refused = Callable[..., str]


@pytest.fixture
def refused(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The error of a load that does not come about, in this process."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["clipper", "load", *arguments, "--home", str(home)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code in (1, 2) and out == "" and "Traceback" not in err
        return err

    return run


def test_an_slo_that_is_kept(home: Path, tmp_path: Path) -> None:
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    status, out, err = load(
        home, "sum", "--rate", "200", "--duration", "1s", "--html", str(page), "--json", str(numbers)
    )
    assert status == 0, err
    assert "The SLO of 20000 ms is kept" in out and "100.00% answered by a model" in out
    assert "sender's own lag" in out and "by the second in which queries were due" in out
    report = json.loads(numbers.read_text())
    assert (report["schema_version"], report["slo_ms"], report["slo_of"]) == (1, 20_000, "application")
    assert report["inputs"] == "random inputs of float64[4]"
    (run,) = report["runs"]
    # All of them, and no input twice: none came from the cache.
    assert run["offered"] == run["answered"] == run["by_model"] > 50
    assert page.read_text().count("<svg") == 3


def test_an_slo_that_is_broken(home: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    options = ("--rate", "50", "--duration", "500ms", "--arrivals", "constant", "--json", str(numbers))
    status, out, _ = load(home, "slow", *options)
    assert status == 0 and "The SLO of 50 ms is broken" in out and "default: " in out
    (run,) = json.loads(numbers.read_text())["runs"]
    assert run["offered"] == 25 == run["answered"]
    assert sum(run["defaults"].values()) > 20
    assert run["good"] == 0


def test_an_application_without_a_default_answers_with_errors(home: Path) -> None:
    (run,) = measured(home, "none", "--rate", "50", "--duration", "500ms", "--arrivals", "burst")["runs"]
    assert run["defaults"] == {} and run["by_model"] == 0
    # The report tells queries that no model was asked from queries whose output came too late.
    assert set(run["errors"]) <= {"504 timeout", "503 overloaded"} and sum(run["errors"].values()) == run["offered"]


def test_inputs_of_a_file_and_another_slo(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text('[1, 2, 3, 4]\n{"input": [0, 0, 0, 1], "context": "user-7"}\n')
    options = ("--rate", "100", "--duration", "500ms", "--inputs", str(path), "--slo-ms", "0.1")
    report = measured(home, "sum", *options)
    assert report["inputs"] == "2 inputs of inputs.jsonl"
    assert (report["slo_ms"], report["slo_of"]) == (0.1, "option")
    (run,) = report["runs"]
    assert run["by_model"] == run["offered"] > 0
    assert run["late"] > 0


def test_a_sweep_finds_where_the_slo_breaks(home: Path) -> None:
    # None is answered within 50 ms, however few there are: there is no lower rate to try.
    report = measured(home, "slow", "--sweep", "--rate", "1", "--duration", "300ms", "--arrivals", "constant")
    assert report["found"] == {"highest_per_s": None, "too_high_per_s": 1.0, "limited_by_sender": False}
    assert [run["rate_per_s"] for run in report["runs"]] == [1, 1]


def test_interrupted_it_tells_what_it_has_measured(home: Path) -> None:
    process = start(home, "sum", "--rate", "100", "--duration", "1h")
    queries_before = queries(home, "sum")
    until(lambda: queries(home, "sum") > queries_before + 20)
    process.send_signal(signal.SIGINT)
    status, out, err = end(process)
    assert status == 0, err
    assert "offered" in out and "answered" in out and "Traceback" not in err


def test_on_a_terminal_it_shows_where_it_stands(home: Path) -> None:
    ours, terminal = pty.openpty()
    command = [*CLIPPER, "load", "sum", "--rate", "100", "--duration", "1500ms", "--home", str(home)]
    with subprocess.Popen(command, stdout=terminal, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # which is how a terminal tells that nobody writes to it any more
            while data := os.read(ours, 4096):
                shown += data
        os.close(ours)
        assert process.wait(TIMEOUT_S) == 0
    assert b"1 s at 100.0 queries/s" in shown
    assert b"goodput" in shown


def test_other_commands_do_not_load_its_libraries() -> None:
    program = "import clipper.cli.main, sys; print(sorted({'numpy', 'uvloop', 'yaml'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout == "[]\n"


def queries(home: Path, application: str) -> float:
    with Clipper.connect(home=home) as clipper:
        lines = clipper.metrics().splitlines()
    name = f'clipper_queries_total{{application="{application}"'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("nope --rate 5", "application 'nope' does not exist"),
        ("sum --rate 5 --inputs /nowhere.jsonl", "/nowhere.jsonl cannot be read"),
        ("sum --rate 5 --html /nowhere/page.html", "/nowhere/page.html cannot be written"),
        ("sum --rate 5 --json /nowhere/numbers.json", "/nowhere/numbers.json cannot be written"),
    ],
)
def test_what_cannot_be(refused: Refused, arguments: str, says: str) -> None:
    assert says in refused(*arguments.split())


def test_more_connections_than_the_machine_allows(home: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096)); "
    command = [sys.executable, "-c", limit + CLIPPER[-1], "load", "sum", "--rate", "5", "--connections", "50000"]
    done = subprocess.run(
        [*command, "--home", str(home)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "50000 connections take" in done.stderr and "ulimit" in done.stderr


def test_inputs_that_are_not_the_applications(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text("[1, 2, 3]\n")
    assert "expected float64[4]" in refused("sum", "--rate", "5", "--inputs", str(path))


def test_by_the_query_port_alone(home: Path, refused: Refused, tmp_path: Path) -> None:
    with Clipper.connect(home=home) as clipper:
        url = clipper.query_url
    path = tmp_path / "inputs.jsonl"
    path.write_text("[1, 2, 3, 4]\n")
    known = ("--rate", "20", "--url", url, "--inputs", str(path))
    report = measured(home, "sum", *known, "--duration", "500ms", "--slo-ms", "1000")
    assert report["runs"][0]["by_model"] == report["runs"][0]["offered"]
    assert "nope" in refused("nope", *known, "--slo-ms", "1000")
    assert "is not the management address" in refused("sum", *known)


def test_a_server_that_dies_meanwhile(tmp_path: Path) -> None:
    server = Server(tmp_path / "home")
    try:
        server.start()
        server.deploy("sum", MODEL, input_type="float64[4]")
        with Clipper.connect(home=server.home) as clipper:
            clipper.create_application("sum", model="sum", slo_ms=500)
        # So long that on a busy machine, too, much of it is left when the server dies.
        process = start(server.home, "sum", "--rate", "200", "--duration", "10s", "--json", "-")
        until(lambda: queries(server.home, "sum") > 50)
        began_s = time.monotonic()
        pids = server.worker_pids
        server.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        status, out, err = end(process)
        assert status == 0, err
        # The rest of the run's duration, the SLO, the wait for late answers, and half a minute for a busy machine.
        assert time.monotonic() - began_s < 10 + 0.5 + 5 + 30
        (run,) = json.loads(out)["runs"]
        assert run["by_model"] >= 40
        assert run["errors"]["cannot connect: Connection refused"] > 0
        ended = run["answered"] + sum(count for what, count in run["errors"].items() if "connect" in what)
        assert ended + run["not_sent"] == run["offered"]
    finally:
        server.clean_up()
