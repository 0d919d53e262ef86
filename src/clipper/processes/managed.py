"""Processes that outlive the supervisor which started them, and that none of them may leak.

Each leads a session of its own and carries a mark in its environment: which run folder it belongs to and what
it is called there. ``run/<name>.json`` records it for take-over. If a supervisor is killed between the start
of a process and its record, the mark still finds it, in ``/proc``, and whatever the process forked.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from clipper.errors import ContainerFailed

log = logging.getLogger(__name__)

MARK = "CLIPPER_PROCESS"

# A process that forks while it is being killed can outrun one look through /proc, hardly many.
KILL_ROUNDS = 20

# One that is becoming another program at that moment shows no mark until it is it. So what ended is looked after this
# often and no less without finding anything; for such a moment, even on a busy machine, that is long.
CLEAN_LOOKS = 3
CLEAN_LOOK_S = 0.05

# After SIGKILL only the kernel is in the way, for instance with a core of many GB to give back.
KILL_TIMEOUT_S = 10.0

# Until there may be a descriptor again to look through /proc with.
LOOK_AGAIN_S = 0.5

# What this process, or the system, has none left of: it says nothing of who was asked.
_OWN_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


class ProcessRecord(Struct, frozen=True):
    """What ``run/<name>.json`` holds.

    Attributes:
        start_time: clock ticks from boot to its start; with the pid it names one process for ever.
        extra: what whoever started it needs to know to take it over.
    """

    name: str
    pid: int
    start_time: int
    argv: tuple[str, ...]
    extra: dict[str, Any]


class ManagedProcess:
    """One running process, our child or one that an earlier supervisor left.

    Attributes:
        exited: set once it has exited and, being our child, has been reaped.
        exit_code: negative for a signal; None while it runs, and for one that is not our child.
    """

    def __init__(self, record: ProcessRecord, child: "subprocess.Popen[bytes] | None", mark: str) -> None:
        self.record = record
        self.exited = asyncio.Event()
        self.exit_code: int | None = None
        self._child = child
        self._mark = mark
        self._pidfd = os.pidfd_open(record.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def mark(self) -> str:
        """What all have in their environment that it forked."""
        return self._mark

    @property
    def how_it_ended(self) -> str:
        if self.exit_code is None:
            return "exited"
        if self.exit_code == -signal.SIGKILL:
            return "was killed by SIGKILL, by someone or by the kernel for want of memory"
        if self.exit_code < 0:
            return f"was killed by {_signal_name(-self.exit_code)}"
        return f"exited with code {self.exit_code}"

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and to all that it forked."""
        try:
            # While it lives, the number of its process group can be nobody else's.
            if start_time(self.pid) == self.record.start_time:
                _kill_group(self.pid)
        except OSError as error:  # we have no descriptor left to look with: what it forked goes when it is gone
            log.warning("the process group of %s is not killed yet: %s", self.record.name, error)
        self._signal(signal.SIGKILL)
        if self.exited.is_set():
            self._kill_rest()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, ``grace_s`` to finish in, then SIGKILL to all that is left. Returns when it is gone."""
        if grace_s > 0:
            self.terminate()
        if not await self.has_exited_within(grace_s):
            self.kill()
            if not await self.has_exited_within(KILL_TIMEOUT_S):
                log.error("%s (pid %d) is still there %g s after SIGKILL", self.record.name, self.pid, KILL_TIMEOUT_S)

    def release(self) -> None:
        """Watch it no longer, and leave it running."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def has_exited_within(self, seconds: float) -> bool:
        """Wait for its exit, no longer than that; return whether it has exited."""
        with contextlib.suppress(TimeoutError):  # not who was first, but its state is the answer
            await asyncio.wait_for(self.exited.wait(), seconds)
        return self.exited.is_set()

    def _signal(self, number: signal.Signals) -> None:
        # Through the pidfd, a signal cannot hit another process that got the pid since.
        if self._pidfd >= 0:
            _send(self._pidfd, number)

    def _on_exit(self) -> None:
        self.release()
        if self._child is not None:
            # Until it is reaped its pid is its own, and so is the number of its process group.
            _kill_group(self.pid)
            self.exit_code = self._child.wait()
        self._kill_rest()

    def _kill_rest(self, looks_left: int = KILL_ROUNDS, clean_looks: int = 0) -> None:
        """All that it forked, wherever that moved itself; it has not exited before they have been looked for."""
        loop = asyncio.get_running_loop()
        try:
            clean_looks = 0 if kill_marked(self._mark.__eq__) else clean_looks + 1
        except OSError as error:  # as in kill: whether there are any is not known, and so is looked at again
            log.warning("what %s forked cannot be looked for now, and will be: %s", self.record.name, error)
            loop.call_later(LOOK_AGAIN_S, self._kill_rest)
            return
        if clean_looks < CLEAN_LOOKS and looks_left > 0 and not self.exited.is_set():
            loop.call_later(CLEAN_LOOK_S, self._kill_rest, looks_left - 1, clean_looks)
            return
        self.exited.set()


class ProcessFolder:
    """The processes whose records are in one run folder."""

    def __init__(self, run: Path, environ: Mapping[str, str], python_path: Path) -> None:
        """``environ`` is our own environment: little of it is passed on. ``python_path`` is where ``clipper`` is."""
        self._run = run
        self._environment = passed_on(environ) | {
            "PYTHONPATH": str(python_path),
            # A process that dies keeps nothing in its buffers: its last lines are the ones that tell why.
            "PYTHONUNBUFFERED": "1",
        }

    def environment(self, name: str) -> dict[str, str]:
        """What a process gets that is called ``name`` here. By its mark it ends with the others, recorded or not."""
        return {**self._environment, MARK: self._mark(name)}

    def launch(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        cwd: Path,
        environment: Mapping[str, str],
        extra: dict[str, Any],
    ) -> ManagedProcess:
        """Start a process in a session of its own. Its output goes straight to the end of ``log_path``.

        Raises:
            ContainerFailed: the system cannot start it, e.g. the program does not exist.
        """
        mark = self._mark(name)
        try:
            with log_path.open("ab") as output:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**self.environment(name), **environment},
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            raise ContainerFailed(f"{name} cannot be started with {argv[0]}: {error}") from error
        try:
            return ManagedProcess(self._record(name, child.pid, argv, extra), child, mark)
        except OSError as error:
            # One that cannot be watched may not run: nobody would know of it.
            _kill_group(child.pid)
            child.kill()
            child.wait()
            raise ContainerFailed(f"{name} cannot be watched: {error}") from error

    def recorded(self) -> list[ProcessRecord]:
        """The records of all processes, those that are gone included. Unreadable records are removed."""
        return [record for path in sorted(self._run.glob("*.json")) if (record := _read_record(path))]

    def adopt(self, record: ProcessRecord) -> ManagedProcess | None:
        """Take over the process that ``record`` tells of; None if it is gone."""
        try:
            process = ManagedProcess(record, None, self._mark(record.name))
        except ProcessLookupError:
            return None
        # Only now, with the pidfd open, can the pid not pass to another process between check and use.
        if start_time(record.pid) != record.start_time:
            process.release()
            return None
        return process

    def update(self, record: ProcessRecord) -> None:
        """Write a record in place of the one before."""
        path = self._path(record.name)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(path)

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def sweep(self, keep: Collection[str]) -> None:
        """Kill every process of this run folder that is not, and was not forked by, one of the names in ``keep``."""
        marks = {self._mark(name) for name in keep}
        kill_marked(lambda mark: mark.startswith(self._mark("")) and mark not in marks)

    def _record(self, name: str, pid: int, argv: Sequence[str], extra: dict[str, Any]) -> ProcessRecord:
        record = ProcessRecord(name, pid, start_time(pid) or 0, tuple(argv), extra)
        try:
            self.update(record)
        except OSError as error:
            # It runs, and its mark keeps it from being leaked; only a take-over would have to replace it.
            log.warning("the record of %s cannot be written: %s", name, error)
        return record

    def _path(self, name: str) -> Path:
        return self._run / f"{name}.json"

    def _mark(self, name: str) -> str:
        return f"{self._run}/{name}"


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """What of our environment the processes get: enough to run, nothing that steers Python or Clipper."""
    return {name: value for name, value in environ.items() if name in _PASSED_ON or name.startswith("LC_")}


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone, or only waits to be reaped."""
    fields = stat_fields(pid)
    return None if fields is None else int(fields[22 - 3])


def stat_fields(pid: int) -> list[str] | None:
    """What ``/proc/PID/stat`` tells from its third field on; None if it is gone, waits to be reaped, or is not ours.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # with hidepid, what is not ours cannot be looked at
    # The command's name, in parentheses, may hold anything; what follows the last one is fields 3, 4, ...
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields


def is_own_want(error: BaseException) -> bool:
    """Whether a call failed for want of descriptors or memory here, which tells nothing of who was asked."""
    return isinstance(error, OSError) and error.errno in _OWN_WANT


def kill_marked(is_meant: Callable[[str], bool]) -> bool:
    """SIGKILL to every process whose mark is meant, wherever it moved itself; return whether there was one.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    killed: set[int] = set()
    for _ in range(KILL_ROUNDS):
        meant = {pid for pid in pids() if is_meant(mark_of(pid))} - killed
        if not meant:
            return bool(killed)
        for pid in meant:
            _kill_if(is_meant, pid)
        killed |= meant
    log.error("processes that should go keep forking faster than they can be killed, last pids %s", killed)
    return True


def pids() -> list[int]:
    """Every process of the machine that can be seen."""
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def mark_of(pid: int) -> str:
    """The mark of a live process; empty if it has none, is gone or is not ours to look at.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError as error:
        if is_own_want(error):
            raise
        return ""
    for entry in environment.split(b"\0"):
        if entry.startswith(MARK.encode() + b"="):
            return os.fsdecode(entry[len(MARK) + 1 :])
    return ""


def _kill_if(is_meant: Callable[[str], bool], pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at again, now that the pid cannot pass to another process.
        if is_meant(mark_of(pid)):
            _send(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def _send(pidfd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return  # it has exited, which is what was wanted


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left in it but the one that waits to be reaped


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read_record(path: Path) -> ProcessRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
    except msgspec.MsgspecError as error:
        log.warning("the process record %s is unreadable and is removed: %s", path, error)
        path.unlink(missing_ok=True)
        return None
