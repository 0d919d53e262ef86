"""What the server's processes and its home take, sampled while it runs."""

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

from msgspec.structs import replace

from benchmarks.harness import in_use
from benchmarks.harness.servers import ClipperServer
from benchmarks.soak.facts import Disk, Life, Taken
from clipper import Clipper
from clipper.errors import ClipperError

EVERY_S = 10.0
# A run has as many samples, so that a short one can be judged, too.
LEAST_SAMPLES = 60
_KB = 1024
_ESTABLISHED = "01"
# Files with bounds of their own, not reached within an hour: the store keeps a million ids of feedback.
_BOUNDED = (".log", ".log.1", "-wal", "/selection.sqlite3")


class Sampler:
    """Looks at a server every ten seconds, or more often in a short run, until told to stop."""

    def __init__(self, server: ClipperServer, folder: Path, grpc_port: int, began_s: float, duration_s: float) -> None:
        """``folder``: where processes write what they have in use."""
        self._folder, self._grpc_port = folder, grpc_port
        self._server, self._began_s = server, began_s
        self._every_s = min(EVERY_S, duration_s / LEAST_SAMPLES)
        self.lives: dict[tuple[int, str], Life] = {}
        self.disk: list[Disk] = []
        self._named: dict[int, str] = {}

    def run(self, stop: Event) -> None:
        number = 0
        while not stop.wait(max(0.0, self._began_s + number * self._every_s - time.monotonic())):
            self.sample()
            number += 1

    def sample(self) -> None:
        self._name()
        at_s = time.monotonic() - self._began_s
        clients = established(self._server.query_address()[1]) | established(self._grpc_port)
        for pid, name in list(self._named.items()):
            with suppress(OSError):  # it has gone
                taken, started = read(pid, at_s, clients)
                blocks, malloc_bytes = in_use.ask(self._folder, pid)
                taken = replace(taken, blocks=blocks, malloc_bytes=malloc_bytes)
                self.lives.setdefault((pid, started), Life(name, pid)).taken.append(taken)
        self.disk.append(Disk(at_s, *_sizes(self._server.home), _processes_of(self._server.home)))

    def line(self) -> str:
        """What those that run take, for people who watch."""
        latest = self.disk[-1].at_s
        each = [life for life in self.lives.values() if life.taken[-1].at_s == latest]
        text = ", ".join(f"{life.name} {life.taken[-1].rss / 1e6:.1f} MB" for life in each)
        return f"{latest / 60:.1f} min: {text}; {self.disk[-1].rest / 1e6:.1f} MB on disk"

    def _name(self) -> None:
        """Ask which processes there are; a supervisor that was just killed leaves those that were known."""
        with suppress(ClipperError), Clipper.connect(home=self._server.home) as clipper:
            status = clipper.status()
            named = {status.pid: "supervisor"}
            named |= {each.pid: f"worker {number}" for number, each in enumerate(status.workers) if each.pid}
            named |= {each.pid: each.id for each in clipper.replicas() if each.pid}
            self._named = named


def established(port: int) -> frozenset[str]:
    """The sockets of connections to a local port, as the links of descriptors name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # a machine without IPv6 has no tcp6
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{rest[5]}]")
    return frozenset(found)


def read(pid: int, at_s: float, clients: frozenset[str] = frozenset()) -> tuple[Taken, str]:
    """What a process takes, and when it was started, which tells it from a later one with its number.

    Args:
        clients: sockets that are not counted. How many connections each worker has is by chance, since they share
            a port: of 224 that are always open, one had up to a fifth more after an hour than after ten minutes.

    Raises:
        OSError: there is none.
    """
    folder = Path("/proc", str(pid))
    started = (folder / "stat").read_text().rpartition(")")[2].split()[19]
    memory = {}
    for line in (folder / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * _KB
    taken = Taken(
        at_s=at_s,
        rss=memory["Rss"],
        pss=memory["Pss"],
        uss=memory["Private_Clean"] + memory["Private_Dirty"],
        descriptors=len(_descriptors(folder) - clients),
        threads=len([*(folder / "task").iterdir()]),
        waited_s=int((folder / "schedstat").read_text().split()[1]) / 1e9,
    )
    return taken, started


def _descriptors(folder: Path) -> set[str]:
    """A process's descriptors: a connection by its socket, any other by its number."""
    found = set()
    for entry in (folder / "fd").iterdir():
        target = ""
        with suppress(OSError):  # it was closed meanwhile
            target = str(entry.readlink())
        found.add(target if target.startswith("socket:") else entry.name)
    return found


def _sizes(home: Path) -> tuple[int, int]:
    logs = rest = 0
    for folder, _, names in os.walk(home):
        for name in names:
            with suppress(OSError):  # it has gone
                path = Path(folder, name)
                size = path.lstat().st_blocks * 512
                if str(path).endswith(_BOUNDED):
                    logs += size
                else:
                    rest += size
    return logs, rest


def _processes_of(home: Path) -> int:
    count, name = 0, str(home).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                count += name in (entry / "cmdline").read_bytes()
    return count
