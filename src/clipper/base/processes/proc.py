"""Reads facts about processes from ``/proc``. All code that reads ``/proc`` is here.

psutil reads it too, but would cost the census, which looks at every process of the machine twice a second, 40 % more
CPU. And its start times are in seconds of a clock that may be set. A pid together with its start in clock ticks since
boot names one process for ever, so records on disk hold these.

A process chooses its own name, which is part of these files: up to 15 bytes of anything, from any user. So the files
are read as bytes, and lines end only where the kernel ends them.
"""

import errno
import os
from pathlib import Path

# Errors because this process or the machine lacks a resource. They say nothing about the process in question.
_OWN_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
# The first field that ``stat_fields`` returns is the third of /proc/PID/stat.
_FIRST_FIELD = 3
# In user mode and in the kernel, in clock ticks.
CPU_TICKS = (14 - _FIRST_FIELD, 15 - _FIRST_FIELD)
START_TIME = 22 - _FIRST_FIELD
_SESSION = 6 - _FIRST_FIELD
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
THREADS = 20 - _FIRST_FIELD
RESIDENT_PAGES = 24 - _FIRST_FIELD
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def is_own_shortage(error: BaseException) -> bool:
    """Whether a call failed because this process lacks descriptors or memory."""
    return isinstance(error, OSError) and error.errno in _OWN_SHORTAGE


def pids() -> list[int]:
    """Return every process of the machine that can be seen."""
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of ``/proc/PID/stat`` from the third on; None if the process is gone, a zombie, or hidden.

    Raises OSError if this process has no descriptor left to look with.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except _GONE:
        return None
    # The second field is the command's name in parentheses. It may hold anything, also blanks and parentheses.
    fields = line[line.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else fields


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None in the same cases as ``stat_fields``."""
    fields = stat_fields(pid)
    return None if fields is None else int(fields[START_TIME])


def session_busy_s(leader: int) -> float:
    """Return how many seconds the processes in the session of ``leader`` have computed or waited for a processor.

    The kernel reports the waiting time only of a process's first thread.
    Raises OSError if this process has no descriptor left to look with.
    """
    busy_s = 0.0
    for pid in pids():
        fields = stat_fields(pid)
        if fields is not None and int(fields[_SESSION]) == leader:
            busy_s += sum(int(fields[index]) for index in CPU_TICKS) / TICKS_PER_S + _waited_s(pid)
    return busy_s


def _waited_s(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    except _GONE:  # also where the kernel was built without it
        return 0.0


def variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment that a process was started with.

    None if the process has no variable of that name, is gone, or may not be read. A process that is just becoming
    another program has no variables for that moment. Raises OSError if this process has no descriptor left.
    """
    prefix = f"{name}=".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError as error:
        if is_own_shortage(error):
            raise
        return None
    found = (entry for entry in environment.split(b"\0") if entry.startswith(prefix))
    return next((os.fsdecode(entry[len(prefix) :]) for entry in found), None)


def program_of(pid: int) -> str | None:
    """Return the program on a process's command line; None if the process is gone, hidden, or a kernel thread."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]) or None
    except _GONE:
        return None


def user_of(pid: int) -> int | None:
    """Return the number of the user that a process acts as; None if the process is gone."""
    return _number(Path(f"/proc/{pid}/status"), b"Uid:", 2)


def parent_of(pid: int) -> int | None:
    """Return the process id of a process's parent; None if the process is gone."""
    return _number(Path(f"/proc/{pid}/status"), b"PPid:", 1)


def proportional_bytes(pid: int) -> int:
    """Return a process's share of memory, 0 if it is gone. The kernel takes some milliseconds for each GB."""
    return 1024 * (_number(Path(f"/proc/{pid}/smaps_rollup"), b"Pss:", 1) or 0)


def _number(path: Path, start: bytes, place: int) -> int | None:
    """Return the number at a place of the line that starts so; None if the process is gone, or has no such line."""
    try:
        content = path.read_bytes()
    except _GONE:
        return None
    # The kernel escapes a line feed in a name, and not what ``splitlines`` takes for the end of a line, too.
    return next((int(line.split()[place]) for line in content.split(b"\n") if line.startswith(start)), None)
