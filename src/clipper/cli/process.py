"""The server's own process: started, waited for, and watched until it is gone."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipper.client import STOP_TIMEOUT_S, Clipper
from clipper.errors import DeadlineExceeded, Unavailable
from clipper.home import Place, read_place
from clipper.http_api import HttpApi
from clipper.management.schemas import Status

# The supervisor opens its registry and starts its workers, which takes about a second; the rest is for a slow machine.
READY_TIMEOUT_S = 60.0
_POLL_S = 0.02
_LOG_LINES = 20
# What the last lines of a log can be expected in.
_LOG_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is started. ``home`` is absolute; a port of 0 is any free one."""

    home: Path
    host: str
    query_port: int
    management_port: int
    workers: int
    cache_bytes: int

    def argv(self) -> list[str]:
        options = {
            "--home": self.home,
            "--host": self.host,
            "--query-port": self.query_port,
            "--management-port": self.management_port,
            "--workers": self.workers,
            "--cache-bytes": self.cache_bytes,
        }
        given = [part for name, value in options.items() for part in (name, str(value))]
        return [sys.executable, "-m", "clipper.supervisor", *given]


def running(home: Path) -> Status | None:
    """The status of the server of ``home``, if it answers."""
    try:
        with Clipper.connect(home=home) as clipper:
            return clipper.status()
    except (Unavailable, DeadlineExceeded):
        return None


def become(settings: ServerSettings) -> None:
    """Turn this process into the server, for a service manager that watches it. Does not return."""
    os.execv(sys.executable, settings.argv())


def spawn(settings: ServerSettings) -> "StartingServer":
    """Start the server in a session of its own: it outlives this command and its terminal.

    Raises:
        Unavailable: the home's log cannot be written.
    """
    log = settings.home / "logs" / "supervisor.log"
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as file:
            start = file.tell()
            process = subprocess.Popen(
                settings.argv(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
    except OSError as error:
        raise Unavailable(f"cannot start a server in {settings.home}: {error}") from error
    return StartingServer(settings.home, process, log, start)


@dataclass(frozen=True, slots=True)
class StartingServer:
    """A server's process. ``log_start`` is how long its log was before it wrote to it."""

    home: Path
    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> Place:
        """Return where it is, once it answers queries.

        Raises:
            Unavailable: it ended; the message has its last lines.
            DeadlineExceeded: it is not ready in time; it is left running.
        """
        problem = "it has not said where it is"
        for _ in _polls(timeout_s):
            self.check_alive("while it started")
            try:
                place = read_place(self.home)
                # Another than ours is the file of a server that ran here before.
                if place.pid == self.process.pid:
                    _check_ready(place)
                    return place
            except (Unavailable, DeadlineExceeded) as error:
                problem = str(error)
        raise DeadlineExceeded(f"the server is not ready after {timeout_s:.0f} s: {problem}; {self._last_lines()}")

    def check_alive(self, when: str) -> None:
        """
        Raises:
            Unavailable: the process has ended; the message has its last lines.
        """
        status = self.process.poll()
        if status is not None:
            raise Unavailable(f"the server ended with status {status} {when}; {self._last_lines()}")

    def _last_lines(self) -> str:
        lines = _tail(self.log, self.log_start)
        return f"the last lines of {self.log}:\n" + "\n".join(lines) if lines else f"its log {self.log} is empty"


def wait_until_gone(home: Path, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Wait for the lock that a server holds as long as it lives.

    Raises:
        DeadlineExceeded: it is still held.
    """
    for _ in _polls(timeout_s):
        if not _is_locked(home / "supervisor.lock"):
            return
    raise DeadlineExceeded(
        f"the server of {home} is still there after {timeout_s:.0f} s: see its log in {home / 'logs'}"
    )


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _check_ready(place: Place) -> None:
    api = HttpApi(place.management_url)
    try:
        api.call("GET", "/health/ready", timeout_s=5.0)
    finally:
        api.close()


def _tail(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # A log shorter than it was has been rotated: then all of it is new.
        begin = start if size >= start else 0
        file.seek(max(begin, size - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-_LOG_LINES:]


def _polls(timeout_s: float) -> Iterator[None]:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        yield
        time.sleep(_POLL_S)
