"""Processes that outlive the supervisor that started them. None of them may leak.

Each leads a session of its own and carries a mark (``marks.py``). ``run/<name>.json`` records it, so that the next
supervisor can take it over. If a supervisor is killed between the start of a process and its record, the mark still
finds the process and whatever it forked.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clipper.base.processes.marks import MARK, Endings, kill_marked
from clipper.base.processes.proc import start_time
from clipper.base.processes.process import Child, ManagedProcess, ProcessRecord, kill_group
from clipper.base.whole_files import write_whole
from clipper.errors import ContainerFailed

log = logging.getLogger(__name__)

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


def running(run: Path) -> list[ProcessRecord]:
    """Return the records in a run folder whose processes run. Changes nothing: a supervisor may be taking them over."""
    found = []
    for path in sorted(run.glob("*.json")):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
        except (OSError, msgspec.MsgspecError):
            continue  # it was just removed, or is not a record of a process
        if start_time(record.pid) == record.start_time:
            found.append(record)
    return found


class ProcessFolder:
    """The processes whose records are in one run folder. ``endings``: ends what processes leave behind."""

    def __init__(self, run: Path, environ: Mapping[str, str], python_path: Path) -> None:
        """``environ``: our own environment, little of which is passed on. ``python_path``: ``clipper``'s folder."""
        self._run = run
        self.python_path = python_path
        self.endings = Endings()
        self._environment = passed_on(environ) | {
            "PYTHONPATH": str(python_path),
            # Without it, the last lines of a process that dies, which say why, would stay in its buffers.
            "PYTHONUNBUFFERED": "1",
        }

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a process called ``name``. Its mark lets ``sweep`` end it, recorded or not."""
        return {**self._environment, MARK: self._mark(name)}

    def launch(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        cwd: Path,
        environment: Mapping[str, str],
        extra: dict[str, Any] | None,
        descriptors: Collection[int] = (),
    ) -> ManagedProcess:
        """Start a process in a session of its own. Its output goes straight to the end of ``log_path``.

        Args:
            extra: as for ``watch``.
            descriptors: the descriptors of this process that it inherits.

        Raises:
            ContainerFailed: the system cannot start it, e.g. the program does not exist.
        """
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
                    pass_fds=descriptors,
                )
        except (OSError, ValueError) as error:
            raise ContainerFailed(f"{name} cannot be started with {argv[0]}: {error}") from error
        try:
            return self.watch(name, child.pid, argv, extra, _OwnChild(child))
        except ContainerFailed:
            child.wait()
            raise

    def watch(
        self, name: str, pid: int, argv: Sequence[str], extra: dict[str, Any] | None, child: Child
    ) -> ManagedProcess:
        """Record and watch a process that was just started, and has its mark. ``extra``: the facts with which the next
        supervisor takes the process over; None if no supervisor will: then the process is not recorded. Raises
        ContainerFailed if the process cannot be watched. It has been killed then, and waits to be reaped.
        """
        try:
            record = ProcessRecord(name, pid, start_time(pid) or 0, tuple(argv), extra or {})
            if extra is not None:
                try:
                    self.update(record)
                except OSError as error:
                    # It runs, and its mark keeps it from leaking. But the next supervisor cannot take it over, and has
                    # to replace it.
                    log.warning(
                        "the record of %(process)s cannot be written: %(error)s", {"process": name, "error": error}
                    )
            return ManagedProcess(record, child, self._mark(name), self.endings)
        except OSError as error:
            # A process that nobody can watch must not run.
            kill_group(pid)
            os.kill(pid, signal.SIGKILL)
            raise ContainerFailed(f"{name} cannot be watched: {error}") from error

    def recorded(self) -> list[ProcessRecord]:
        """Return the records of all processes, also of processes that are gone. Unreadable records are removed."""
        records = []
        for path in sorted(self._run.glob("*.json")):
            try:
                records.append(msgspec.json.decode(path.read_bytes(), type=ProcessRecord))
            except msgspec.MsgspecError as error:
                log.warning(
                    "the process record %(file)s is unreadable and is removed: %(error)s",
                    {"file": path, "error": error},
                )
                path.unlink(missing_ok=True)
        return records

    def running(self) -> list[ProcessRecord]:
        return running(self._run)

    def adopt(self, record: ProcessRecord) -> ManagedProcess | None:
        """Take over the process of a record; None if it is gone."""
        try:
            process = ManagedProcess(record, None, self._mark(record.name), self.endings)
        except ProcessLookupError:
            return None
        # Checked after the pidfd was opened: if the times are equal, the pidfd is of the process in the record.
        if start_time(record.pid) != record.start_time:
            process.release()
            return None
        return process

    def update(self, record: ProcessRecord) -> None:
        write_whole(self._path(record.name), (msgspec.json.encode(record),))

    def forget(self, name: str) -> None:
        """Remove the record of a process that is gone."""
        self._path(name).unlink(missing_ok=True)

    async def end(self, name: str) -> None:
        """Kill every process called ``name``, recorded or not, and all that it forked; return when they are gone."""
        await self.endings.end(self._mark(name))

    def sweep(self, keep: Collection[str]) -> None:
        """Kill every process of this run folder, except for the names in ``keep`` and all that these forked."""
        marks = {self._mark(name) for name in keep}
        kill_marked(lambda mark: mark.startswith(self._mark("")) and mark not in marks)

    def _path(self, name: str) -> Path:
        return self._run / f"{name}.json"

    def _mark(self, name: str) -> str:
        return f"{self._run}/{name}"


class _OwnChild:
    """A ``Child`` that this process has started."""

    is_held = True

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child

    async def reap(self) -> int | None:
        return self._child.wait()


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that processes inherit: enough to run, and none that steers Python or Clipper."""
    return {name: value for name, value in environ.items() if name in _PASSED_ON or name.startswith("LC_")}
