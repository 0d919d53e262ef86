"""What is measured: Clipper as its user runs it, and the yardstick."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from clipper.cli.load.report import Report, Run

YARDSTICK = Path(__file__).parents[1] / "yardstick"
MODELS = Path(__file__).parents[1] / "models"

# Longer than any command of Clipper's may take that builds no environment.
COMMAND_WITHIN_S = 120
# A start that is interrupted waits until its server has stopped.
INTERRUPTED_WITHIN_S = 60.0
LISTEN_WITHIN_S = 20.0


class CommandFailed(Exception):
    """One of Clipper's commands exited with an error; the message holds what it printed."""


def clipper_command() -> str:
    """The ``clipper`` beside this interpreter, so that the measured one is of this environment."""
    return str(Path(sys.executable).parent / "clipper")


class ClipperServer:
    """A running Clipper in a home of its own, driven by its command line."""

    def __init__(self, home: Path, command: str | None = None) -> None:
        """``command``: the ``clipper`` that is measured; the one beside this interpreter if None."""
        self.home = home
        self._command = command or clipper_command()
        self.environment = {**os.environ, "CLIPPER_HOME": str(home)}
        self.management_url = self.query_url = ""

    def start(self, *options: str) -> None:
        ports = ["--query-port", "0", "--management-port", "0"]
        if "--grpc-port" in self._output(["start", "--help"], None, COMMAND_WITHIN_S):  # an earlier one has no gRPC
            ports += ["--grpc-port", "off"]
        self.run("start", *ports, *options)
        self.read_urls()

    def read_urls(self) -> None:
        status = self.run("status")
        self.query_url, self.management_url = status["query_url"], status["management_url"]

    def run(self, *arguments: str, folder: Path | None = None, within_s: float = COMMAND_WITHIN_S) -> Any:
        """Run one command with ``--json``, in ``folder`` or here, and return what it printed.

        Raises:
            CommandFailed: it exited with another code than 0.
        """
        output = self._output([*arguments, "--json"], folder, within_s)
        return json.loads(output) if output.strip() else None

    def deploy(self, name: str, *deployment: str, slo_ms: float) -> None:
        """Deploy a model, a path or one of ``MODELS``, and create an application of its name, whose default is -1."""
        self.run("deploy", name, *deployment, folder=MODELS)
        self.run("app", "create", name, "--model", name, "--slo-ms", f"{slo_ms:g}", "--default", "-1")

    def load(self, application: str, rate_per_s: float, seconds: float, *options: str) -> Run:
        """Ask an application so much, whether or not it answers.

        The load goes first where it may: applications run on other machines, and do not wait behind models for a
        processor.

        Raises:
            CommandFailed: it could not be asked at all.
        """
        rate = ["--rate", f"{rate_per_s:g}", "--duration", f"{seconds:g}s"]
        first = ["chrt", "--rr", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []
        output = self._output(["load", application, *rate, *options, "--json", "-"], None, COMMAND_WITHIN_S, first)
        [run] = msgspec.json.decode(output, type=Report).runs
        return run

    def _output(
        self, arguments: Sequence[str], folder: Path | None, within_s: float, before: Sequence[str] = ()
    ) -> str:
        command = [*before, self._command, *arguments]
        code, output, errors = _run_to_its_end(command, self.environment, folder, within_s)
        if code:
            raise CommandFailed(f"{' '.join(command)} exited {code}:\n{output}{errors}")
        return output

    def stop(self) -> None:
        self.run("stop")

    def url(self, application: str) -> str:
        return f"{self.query_url}/{application}/predict"

    def query_address(self) -> tuple[str, int]:
        parts = urlsplit(self.query_url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def authorization(self) -> dict[str, str]:
        """The header that the management API wants to see."""
        return {"Authorization": f"Bearer {(self.home / 'token').read_text().strip()}"}

    def metrics(self) -> "Metrics":
        answer = httpx.get(f"{self.management_url}/metrics", headers=self.authorization(), timeout=10)
        return Metrics(answer.raise_for_status().text)

    def process_ids(self) -> list[int]:
        """Of the supervisor and its query workers."""
        status = self.run("status")
        return [status["pid"], *(worker["pid"] for worker in status["workers"])]


def _run_to_its_end(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | None, within_s: float
) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it printed, and its errors.

    If we are ended meanwhile, it is interrupted and not killed: a start that was cut off would leave its server. In a
    process group of its own it gets no signal but ours.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdout=pipe, stderr=pipe, text=True, process_group=0
    ) as process:
        try:
            output, errors = process.communicate(timeout=within_s)
        except BaseException:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERRUPTED_WITHIN_S)
            process.kill()
            raise
        return process.returncode, output, errors


def processor_ns(pid: int) -> int:
    """The processor time, user and system, that a process has taken."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def resident_bytes(pid: int) -> int:
    """A process's resident memory; what it shares with others counts in full."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self._names = {family.name for family in families}
        self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name whose labels include these.

        Raises:
            KeyError: there is no metric of that name at all.
        """
        if name not in self._names and name.rpartition("_")[0] not in self._names:
            raise KeyError(f"/metrics has no {name}")
        return sum(
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextlib.contextmanager
def clipper(*options: str, command: str | None = None) -> Iterator[ClipperServer]:
    """A Clipper in a temporary home, stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="clipper-bench-"))
    server = ClipperServer(home, command)
    try:
        server.start(*options)
        yield server
    finally:
        with contextlib.suppress(CommandFailed):  # it may not have started: what that said is on its way up already
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def yardstick() -> Iterator[str]:
    """The yardstick with its model; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="yardstick-") as folder:
        path = Path(folder) / "model.sock"
        port = free_port()
        with process([str(YARDSTICK / "model.py"), str(path)]):
            wait_until(path.exists, f"the yardstick's model to make {path}")
            with process([str(YARDSTICK / "front.py"), "--port", str(port), "--socket", str(path)]):
                wait_until(lambda: listens(port), f"the yardstick on port {port}")
                yield f"http://127.0.0.1:{port}/any"


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """The yardstick's front without a model: a fixed answer; yields its URL."""
    port = free_port()
    with process([str(YARDSTICK / "front.py"), "--port", str(port), "--echo"]):
        wait_until(lambda: listens(port), f"the echo on port {port}")
        yield f"http://127.0.0.1:{port}/any"


@contextlib.contextmanager
def process(
    arguments: Sequence[str], program: str = sys.executable, stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this Python, or of another program, that is ended at the end of the block."""
    child = subprocess.Popen([program, *arguments], stderr=stderr)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def free_port() -> int:
    """A port on which nobody listens, below those that the system gives to whoever asks for any of them."""
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(below // 2, below)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], what: str, within_s: float = LISTEN_WITHIN_S) -> None:
    """Poll until the condition holds. Raises TimeoutError if it did not within that time."""
    give_up_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"waited {within_s:.0f} s for {what}")
        time.sleep(0.01)
