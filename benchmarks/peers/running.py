"""Starts a peer, sees that its answers are right, and ends all of its processes."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.harness.servers import free_port, listens
from benchmarks.peers.forms import Row
from benchmarks.peers.processes import is_running, processes_of
from benchmarks.peers.table import APPS, Peer
from benchmarks.peers.tasks import Task
from scripts.real_models import environment, made

# Ray takes ten seconds on a quiet machine.
START_WITHIN_S = 180.0
ANSWER_WITHIN_S = 10.0
# Of each of three ways to end, from the one that lets it end in order to the one that nothing survives.
END_WITHIN_S = {signal.SIGINT: 30.0, signal.SIGTERM: 10.0, signal.SIGKILL: 10.0}
# Processes that an ended server leaves end within this, or not by themselves.
LEFT_WITHIN_S = 2.0
CHECKED, CHECKED_AT_ONCE = 64, 8
# Clipper answers a default rather than late, also where a busy machine is all that is wrong, and services of BentoML
# that ask each other answer 500 at times ("Server disconnected"). Then they are asked again: the load counts such
# answers as failed, and here only a wrong one matters.
ASKED_AT_MOST = 50
DEFAULT = b'"default":true'
# ``ask`` raises these.
NO_ANSWER = (OSError, http.client.HTTPException, LookupError, TypeError, ValueError)
# A peer's process gets these of this one's variables.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "JAVA_HOME", "CLIPPER_CACHE", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES")
# A BLAS of several threads would take processors from the other processes, whoever serves.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "true", "PYTHONUNBUFFERED": "1"}
_LOG_TAIL = 3000


class PeerFailed(Exception):
    """A peer did not start, or answered something else than its model says; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that serves a task.

    Attributes:
        mark: what the environment of its processes holds.
        requests: a file of the requests that a load sends, as requests.lua reads it.
        started_s: from its start to its first right answer.
        second_port: of gRPC, for the servers that are asked so.
    """

    name: str
    peer: Peer
    port: int
    mark: str
    requests: Path
    started_s: float
    second_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.peer.path}"

    def processes(self) -> set[int]:
        return processes_of(self.mark)


@contextlib.contextmanager
def running(name: str, peer: Peer, task: Task) -> Iterator[Running]:
    """Start a peer; end it with the block.

    Raises:
        PeerFailed: it did not start, or its answers are wrong.
    """
    scratch = Path(tempfile.mkdtemp(prefix="clipper-peer-"))
    mark = f"PEER_RUN={uuid.uuid4().hex}"
    process = None
    try:
        python, data = _made(peer, task)
        variables = _variables(peer, task, python, data, scratch)
        if peer.prepare is not None:
            peer.prepare(variables)
        command = [
            part.format(python=python, bin=python.parent, folder=APPS, **variables) for part in peer.command.split()
        ]
        asked = json.loads((data / "rows.json").read_text())[task.name]
        log = scratch / "log"
        began_s = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=scratch if peer.prepare else APPS,
                env=variables | dict([mark.split("=")]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        port = int(variables["PORT"])
        _wait_for_first(name, peer, port, asked["rows"][0], process, log)
        started_s = time.monotonic() - began_s
        check(name, peer, port, asked["rows"], asked["answers"])
        requests = _requests(peer, asked["rows"], scratch / "requests")
        yield Running(name, peer, port, mark, requests, started_s, int(variables["SECOND_PORT"]))
        check(name, peer, port, asked["rows"], asked["answers"])
    finally:
        if process is not None:
            _end(process, mark)
        shutil.rmtree(scratch, ignore_errors=True)


def _made(peer: Peer, task: Task) -> tuple[Path, Path]:
    """The interpreter of a peer's environment, and the folder with its model and what it is asked."""
    script = APPS / task.rows_by
    if peer.environment is not None:
        name = f"peers/{peer.environment}"
        return environment(name), made(script, name, *task.reads)
    if task.made_in is not None:
        # Clipper's own environment lacks the library: Clipper finds out from the file what the model needs.
        return Path(sys.executable), made(script, task.made_in, *task.reads)
    return Path(sys.executable), Path(_own_data().name)


@cache
def _own_data() -> "tempfile.TemporaryDirectory[str]":
    """Made once for all peers of Clipper's own environment; it goes with this process."""
    folder = tempfile.TemporaryDirectory(prefix="clipper-peers-")
    subprocess.run([sys.executable, str(APPS / "model.py"), folder.name], check=True)
    return folder


def _variables(peer: Peer, task: Task, python: Path, data: Path, scratch: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    kept["PATH"] = f"{python.parent}:{kept['PATH']}"
    second, third = free_port(), free_port()
    return {
        **kept,
        **ONE_THREAD,
        **QUIET,
        **peer.settings_of(task.name),
        "TASK": task.name,
        "SLO_MS": str(task.slo_ms),
        "DATA": str(data),
        "MODEL": str(data / f"{task.name}.{task.suffix}"),
        "ROWS": str(data / "rows.json"),
        "PORT": str(free_port()),
        "SECOND_PORT": str(second),
        "THIRD_PORT": str(third),
        "SCRATCH": str(scratch),
        "BIN": str(python.parent),
        "PYTHONPATH": str(APPS),
        # Triton looks for the interpreter's library.
        "LD_LIBRARY_PATH": str(python.resolve().parents[1] / "lib"),
    }


def _wait_for_first(name: str, peer: Peer, port: int, row: Row, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until an answer comes; the load does not begin with a server that still loads its model."""
    give_up_s = time.monotonic() + START_WITHIN_S
    last: object = "it listened to nobody"
    while process.poll() is None and time.monotonic() < give_up_s:
        if listens(port):
            try:
                ask(peer, port, row)
                return
            except NO_ANSWER as error:
                last = error
        time.sleep(0.01)
    tail = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
    raise PeerFailed(f"{name} did not start: {last!r}\n{tail}")


def ask(peer: Peer, port: int, row: Row) -> float:
    """Ask one row; return the model's answer.

    Raises:
        OSError, http.client.HTTPException: there was no answer.
        LookupError, TypeError, ValueError: it is none of a model.
    """
    headers, body = peer.form.write(row)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
    with contextlib.closing(connection):
        for _ in range(ASKED_AT_MOST):
            connection.request("POST", peer.path, body, dict(headers))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200 and DEFAULT not in text:
                return peer.form.read(json.loads(text))
            if answer.status not in (200, 500):
                break
    raise ValueError(f"status {answer.status}: {text[:300]!r}")


def check(name: str, peer: Peer, port: int, rows: list[Row], answers: list[float]) -> None:
    """Ask the first rows, several at once: each gets its own answer.

    Raises:
        PeerFailed: one did not.
    """
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        try:
            answered = list(pool.map(lambda row: ask(peer, port, row), rows[:CHECKED]))
        except NO_ANSWER as error:
            raise PeerFailed(f"{name} did not answer: {error!r}") from error
    wrong = [(got, wanted) for got, wanted in zip(answered, answers) if abs(got - wanted) > 1e-9]
    if wrong:
        raise PeerFailed(f"{name}: {len(wrong)} of {CHECKED} answers are wrong, e.g. {wrong[0][0]}, not {wrong[0][1]}")


def _requests(peer: Peer, rows: list[Row], path: Path) -> Path:
    whole = [peer.form.request(peer.path, row) for row in rows]
    path.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in whole))
    return path


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    # A child with an environment of its own is not found any more once its parent has ended.
    known = processes_of(mark)
    for signal_number, within_s in END_WITHIN_S.items():
        # The first goes to the one that was started, which ends the others in order.
        for pid in {process.pid} if signal_number is signal.SIGINT else known:
            with contextlib.suppress(OSError):
                os.kill(pid, signal_number)
        give_up_s = time.monotonic() + within_s
        while time.monotonic() < give_up_s:
            process.poll()
            known = {pid for pid in known | processes_of(mark) if is_running(pid)}
            if not known:
                return
            if process.returncode is not None:
                give_up_s = min(give_up_s, time.monotonic() + LEFT_WITHIN_S)
            time.sleep(0.1)
