"""The processes of a peer, and what they have taken of the processors."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def processes_of(mark: str) -> set[int]:
    """The processes whose environment holds ``mark``, and all that descend from them.

    Some overwrite the environment that the kernel shows, or give a child another one.
    """
    parents: dict[int, int] = {}
    found: set[int] = set()
    wanted = mark.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                state, parent = _stat(entry)[0:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
                    if wanted in (entry / "environ").read_bytes():
                        found.add(int(entry.name))
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return found - {os.getpid()}


def is_running(pid: int) -> bool:
    """A zombie, which its parent has yet to take note of, has ended."""
    try:
        return _stat(Path("/proc") / str(pid))[0] != "Z"
    except OSError:
        return False


def cpu_s(processes: Iterable[int]) -> dict[int, float]:
    """The seconds of user and system time that each has taken; without those that have ended."""
    taken = {}
    for pid in processes:
        with suppress(OSError):
            user, system = _stat(Path("/proc") / str(pid))[11:13]
            taken[pid] = (int(user) + int(system)) / _TICKS_PER_S
    return taken


def proportional_mb(processes: Iterable[int]) -> float:
    """The memory of all of them; what several share counts once."""
    total_kb = 0
    for pid in processes:
        with suppress(OSError):
            lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
            total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024


def _stat(folder: Path) -> list[str]:
    text = (folder / "stat").read_text()
    return text[text.rindex(")") + 2 :].split()
