"""Turns a process that was just forked into a container that is equal to a newly started container."""

import ctypes
import gc
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# From Linux's prctl.h.
_PR_SET_DUMPABLE = 4
# The place of the addresses of a process's arguments and variables in /proc/PID/stat, from the 48th field on.
_FIRST_ADDRESS = 48 - 3
# The module that a container runs.
RUNTIME = "clipper.model.runtime"


@dataclass(frozen=True, slots=True)
class Container:
    """The container that a forked process becomes.

    Attributes:
        options: the options of ``python -m clipper.model.runtime``.
        variables: all its environment variables.
        folder: the folder that it works in.
        code: the folder of the model's own modules, which need not exist.
        cores: the cores that it may run on; None means any.
    """

    options: list[str]
    variables: dict[str, str]
    folder: str
    code: str
    cores: list[int] | None = None

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", RUNTIME, *self.options]


@dataclass(frozen=True, slots=True)
class ProcessTexts:
    """The memory in which the kernel finds the arguments and variables of this process, for ``/proc/PID`` and ps.

    A process has these texts from its start. ``/proc/PID/environ`` has the mark by which Clipper finds all processes of
    a container, so a forked container must have texts of its own. It writes them over those of the fork server, which
    was therefore started with longer texts than it needs.
    """

    arguments: int
    arguments_bytes: int
    variables: int
    variables_bytes: int

    @staticmethod
    def find() -> "ProcessTexts | None":
        """Find the texts of this process; return None if the kernel does not say where they are.

        From then on no variable is read from there: the variables that libraries read are copied.
        """
        copied = dict(os.environ)
        os.environ.clear()
        os.environ.update(copied)
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end, variables_start, variables_end = map(int, fields[_FIRST_ADDRESS : _FIRST_ADDRESS + 4])
        if not 0 < start < end <= variables_start < variables_end:
            return None
        return ProcessTexts(start, end - start, variables_start, variables_end - variables_start)

    def write(self, argv: list[str], variables: dict[str, str]) -> bool:
        """Write arguments and variables; return False, and write neither, if there is no room for them."""
        arguments = b"".join(os.fsencode(text) + b"\0" for text in argv)
        pairs = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items())
        if len(arguments) > self.arguments_bytes or len(pairs) > self.variables_bytes:
            return False
        ctypes.memmove(self.arguments, arguments.ljust(self.arguments_bytes, b"\0"), self.arguments_bytes)
        ctypes.memmove(self.variables, pairs.ljust(self.variables_bytes, b"\0"), self.variables_bytes)
        return True


def become(container: Container, texts: ProcessTexts, output: int) -> None:
    """Turn this process, which was just forked, into the container; or start it anew if it must not be forked.
    ``output``: the descriptor of the container's log. Raises OSError if the container's folder cannot be entered, or it
    may not run on its cores.
    """
    os.setsid()
    set_dumpable(True)
    # A newly started process has the default.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    before = str(Path.cwd())
    os.chdir(container.folder)
    # A session is as nice as its first process only if that is set: see ``processes.limits``. The other limits there
    # were set for the fork server, and hold for all processes that it forks.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))
    if container.cores is not None:
        os.sched_setaffinity(0, container.cores)
    # Leave out the token, which the container removes from its variables, too.
    told = {name: value for name, value in container.variables.items() if name != "CLIPPER_TOKEN"}
    hidden = hidden_modules(Path(container.code))
    if hidden or not texts.write(container.argv, told):
        if hidden:
            sys.stderr.write(
                f"clipper: the model's code has {hidden} of its own, so no library is shared with others\n"
            )
        os.execve(sys.executable, container.argv, container.variables)
    os.environ.clear()
    os.environ.update(container.variables)
    # Python sets these at its start.
    sys.argv = [str(Path(__file__).with_name("__main__.py")), *container.options]
    if sys.path and sys.path[0] == before:
        sys.path[0] = container.folder
    _forget_inherited_state()


def hidden_modules(code: Path) -> str:
    """Return the names of the model's own modules that are hidden by imported modules of these names; or empty.

    The folder of the model's code comes first on the path, so the model means its own module.
    """
    try:
        own = {entry.name.partition(".")[0] for entry in os.scandir(code)}
    except OSError:
        return ""
    return ", ".join(sorted(own & {name.partition(".")[0] for name in sys.modules}))


def set_dumpable(dumpable: bool) -> None:
    """Set whether other processes of this user may read this process's memory and descriptors, or debug it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def _forget_inherited_state() -> None:
    """Reset the state that must differ between containers, or that depends on variables that differ."""
    # Python's own generator seeds itself anew in a forked process; numpy's does not.
    numpy: Any = sys.modules["numpy"]
    numpy.random.seed()
    # Importing this module made the secret by which processes that a model starts know each other.
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None
    gc.enable()
