"""Starts the server's process, waits for it, and watches it until it is gone."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import typer

from clipper.api.schemas import Status
from clipper.base.processes.proc import stat_fields
from clipper.base.run_as import find_run_as
from clipper.base.tls.material import read_material
from clipper.client import STOP_TIMEOUT_S, Clipper
from clipper.client.calls import polls
from clipper.errors import Conflict, DeadlineExceeded, InvalidArgument, MalformedRequest, Unauthorized, Unavailable
from clipper.settings.home import is_locked, make_home, read_token
from clipper.settings.server import ADDRESSES, ServerSettings, why_not_together
from clipper.settings.start_options import StartOptions, encode
from clipper.supervisor.managers.logs import tail
from clipper.values.types import START_VARIABLE, STOPS_WITH

T = TypeVar("T")
USUAL = ServerSettings()

# The supervisor opens its registry and starts its workers in about a second; a slow machine may take longer.
READY_TIMEOUT_S = 60.0
# The server's exit status if its options are wrong.
_WRONG_USAGE = 2
_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class ServerStart:
    """The start of a server: its home and its settings.

    Attributes:
        home: an absolute path.
        settings: the fields of ``ServerSettings`` that were given now, or kept from the last start.
        options: the source of each setting; None if the server need not keep them.
    """

    home: Path
    settings: Mapping[str, Any]
    options: StartOptions | None = None

    def argv(self, program: str = "clipper.supervisor") -> list[str]:
        arguments = ["--home", str(self.home)]
        for name, value in self.settings.items():
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                arguments += [flag] * value
            elif name not in ADDRESSES:
                for each in value if isinstance(value, tuple) else (value,):
                    arguments += [flag, str(each)]
        return [sys.executable, "-m", program, *arguments]

    def environment(self) -> dict[str, str]:
        """Return the server's environment, with addresses, which may have passwords: others can read a command line."""
        given = {variable: self.settings.get(name) for name, variable in ADDRESSES.items()}
        if self.options is not None:
            given[START_VARIABLE] = encode(self.options).decode()
        return {**os.environ, **{variable: address for variable, address in given.items() if address is not None}}


def checked_start(home: Path, settings: dict[str, Any], options: StartOptions | None = None) -> ServerStart:
    """Check the settings in the command, which can show the user a fault; the server could only log it."""
    wanted = ServerSettings(**settings)
    if wrong := why_not_together(wanted):
        raise typer.BadParameter(wrong.why, param_hint=wrong.options)
    if wanted.tls is not None:
        read_material(wanted.tls)
    if wanted.run_as is not None:
        try:
            find_run_as(wanted.run_as)
        except InvalidArgument as error:
            raise typer.BadParameter(str(error), param_hint="--run-as") from error
    return ServerStart(home, settings, options)


def run_program(argv: list[str], kind: type[T], timeout_s: float, environment: Mapping[str, str] | None = None) -> T:
    """Run a program of ours that writes JSON, and return its output.

    Raises Unavailable if it cannot be run or fails; the message is its last line about the failure. Raises
    DeadlineExceeded if it does not end in time.
    """
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout_s, check=False, env=environment)
    except OSError as error:
        raise Unavailable(f"{argv[0]} cannot be run: {error}") from error
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{argv[2]} has not ended within {timeout_s:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise Unavailable(said[-1].removeprefix("clipper: "))
    return msgspec.json.decode(done.stdout, type=kind)


def running(home: Path) -> Status | None:
    """Return the status of the server of ``home``; None if it does not answer."""
    try:
        # Use the home's own token: the token in the environment may be for another server.
        with Clipper.connect(home=home, token=read_token(home)) as clipper:
            return clipper.status()
    # Unauthorized: another server has its port. MalformedRequest: it speaks TLS now, and its file does not say so yet.
    except (Unavailable, DeadlineExceeded, Unauthorized, MalformedRequest):
        return None


def settled(home: Path) -> Status | None:
    """Wait until the server of ``home`` is neither starting nor stopping. Return its status; None if none runs.

    Raises Conflict if the server was told to stop and its drain delay lasts longer than ``STOP_TIMEOUT_S``;
    DeadlineExceeded if a server holds the home and does not answer for ``STOP_TIMEOUT_S``.
    """
    now = None
    for _ in polls(STOP_TIMEOUT_S):
        now = running(home)
        if now is None:
            if not is_locked(home):
                return None
        elif not now.stopping:
            return now
    if now is not None:
        raise Conflict(
            f"the server of {home} was told to stop, and answers queries until its drain delay is over: clipper stop "
            "ends the delay, and waits; then start the server again"
        )
    raise DeadlineExceeded(
        f"the server of {home} has neither answered nor stopped within {STOP_TIMEOUT_S:.0f} s: see {home / 'logs'}"
    )


def become(start: ServerStart) -> None:
    """Turn this process into the server, for a service manager that watches it. Does not return."""
    os.execve(sys.executable, start.argv(), start.environment())


def spawn(start: ServerStart, stops_with: int | None = None) -> "StartingServer":
    """Start the server in its own session, so that it outlives this command and its terminal. ``stops_with``: the
    reading end of a pipe. The server stops once every writing end is closed. Raises Unavailable if the home belongs to
    another user, or its log cannot be written.
    """
    log = start.home / "logs" / "supervisor.log"
    make_home(start.home)
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as file:
            log_start = file.tell()
            argv = start.argv()
            if stops_with is not None:
                argv += [STOPS_WITH, str(stops_with)]
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                pass_fds=() if stops_with is None else (stops_with,),
                env=start.environment(),
            )
    except OSError as error:
        raise Unavailable(f"cannot start a server in {start.home}: {error}") from error
    return StartingServer(start.home, process, log, log_start, start.settings.get("drain_delay_s", 0.0))


@dataclass(frozen=True, slots=True)
class StartingServer:
    """A server's process, with its log from ``log_start`` on. ``drain_delay_s``: how long it answers when stopped."""

    home: Path
    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int
    drain_delay_s: float = 0.0

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> Status:
        """Wait until the server answers queries, and return its status.

        If a model cannot be started, or is not ready in time, the server still runs for the others, and the problems of
        the returned status say why. A standby answers no queries, and its status is returned at once. Raises
        Unavailable if the server ended, or its workers cannot start; the message has the last lines of their logs.
        Raises DeadlineExceeded if no worker is ready in time.
        """
        problem, last = "it has not written its address to supervisor.json", None
        for _ in polls(timeout_s):
            self.check_alive("while it started")
            now = running(self.home)
            # A server with another pid ran here before and is about to end.
            if now is None or now.pid != self.process.pid:
                continue
            all_answer = now.ready and now.applications_ready in (None, now.applications)
            waits_in_vain = "crash_loop" in now.replicas and "starting" not in now.replicas
            if all_answer or stands_by(now) or (answers(now) and waits_in_vain):
                return now
            self._check_workers(now)
            problem, last = "; ".join(now.problems), now
        if last is not None and answers(last):
            return last
        raise DeadlineExceeded(f"the server is not ready after {timeout_s:.0f} s: {problem}; {_last_lines(self.log)}")

    def stop(self) -> None:
        """Drain and stop the server, if it runs. Raises DeadlineExceeded ``STOP_TIMEOUT_S`` after the delay."""
        if self.process.poll() is None:
            self.process.terminate()
            timeout_s = self.drain_delay_s + STOP_TIMEOUT_S
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise DeadlineExceeded(_still_there(self.home, timeout_s)) from error

    def kill(self) -> None:
        """End the server alone, if it runs: its workers and models go on."""
        self.process.kill()
        self.process.wait()

    def check_alive(self, when: str) -> None:
        """Raise InvalidArgument, as the server says, if it refused its options; Unavailable if it has ended."""
        status = self.process.poll()
        if status == _WRONG_USAGE and (told := tail(self.log, _LOG_LINES, self.log_start)):
            raise InvalidArgument(told[-1].removeprefix("clipper: "))
        if status is not None:
            raise Unavailable(f"the server ended with status {status} {when}; {_last_lines(self.log, self.log_start)}")

    def _check_workers(self, now: Status) -> None:
        for worker in now.workers:
            if worker.state == "crash_loop" and worker.node:
                if answers(now):
                    continue  # the other nodes answer, and the status says what is wrong here
                # The log of a worker on a node is on that node.
                raise Unavailable(
                    f"worker {worker.index} on {worker.node} dies each time it starts: {worker.last_error}"
                )
            if worker.state == "crash_loop":
                log = self.log.with_name(f"worker-{worker.index}.log")
                raise Unavailable(f"worker {worker.index} dies each time it starts; {_last_lines(log)}")


def answers(now: Status) -> bool:
    return any(worker.state == "ready" for worker in now.workers)


def stands_by(now: Status) -> bool:
    return now.lease is not None and now.lease.role == "standby"


def wait_until_gone(home: Path, pid: int, drain_delay_s: float = 0.0) -> None:
    """Wait for a server's lock, and its process's end. Raises DeadlineExceeded ``STOP_TIMEOUT_S`` after the delay."""
    timeout_s = drain_delay_s + STOP_TIMEOUT_S
    for _ in polls(timeout_s):
        if not is_locked(home) and stat_fields(pid) is None:
            return
    raise DeadlineExceeded(_still_there(home, timeout_s))


def _still_there(home: Path, timeout_s: float) -> str:
    return f"the server of {home} still runs {timeout_s:.0f} s after it was asked to stop: see {home / 'logs'}"


def _last_lines(log: Path, start: int = 0) -> str:
    lines = tail(log, _LOG_LINES, start)
    return f"the last lines of {log}:\n" + "\n".join(lines) if lines else f"its log {log} is empty"
