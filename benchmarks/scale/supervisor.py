"""``python -m benchmarks.scale.supervisor STUBS HOST [HOST …] -- OPTIONS``: a real supervisor with stubs as containers,
whose workers are in host processes.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import msgspec

from clipper.base.processes.folder import ProcessFolder
from clipper.control.snapshot import ReplicaAddress
from clipper.settings.version import VersionSpec
from clipper.supervisor import __main__ as program
from clipper.supervisor import assembly, folders
from clipper.supervisor.managers.launcher import Container, ContainerNote, Keeper, OnProgress, Runnable
from clipper.supervisor.workers import worker_process
from clipper.values.types import STORE_VARIABLE

# As long as a container of a small model takes from a warmed process.
START_S = 0.05


class Stub:
    """A container, or the process of a worker, that only ends when it is told to."""

    warning: str | None = None
    node: str | None = None
    how_it_ended = "was stopped"

    def __init__(self, address: ReplicaAddress, pid: int | None = None) -> None:
        self.address = address
        self.pid = pid
        self.exited = asyncio.Event()

    async def has_exited_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            pass
        return self.exited.is_set()

    async def stop(self, grace_s: float) -> None:
        self.exited.set()

    def terminate(self) -> None:
        self.exited.set()

    kill = note_ready = release = terminate

    async def save_log(self) -> None: ...


class StubContainer(Stub):
    is_lost = False

    def note_ready(self) -> None: ...


class StubLauncher:
    def __init__(self, path: str) -> None:
        self._path = path

    def check(self, asked: Runnable) -> None: ...

    def keepers(self) -> Mapping[str, Keeper]:
        return {}

    def choose_address(self, number: int) -> str:
        return f"unix:{self._path}"

    async def launch(
        self, note: ContainerNote, log_path: Path, on_progress: OnProgress, variables: Mapping[str, str]
    ) -> Container:
        await asyncio.sleep(START_S)
        return StubContainer(ReplicaAddress(note.id, note.listen, f"{note.slot.model}:{note.slot.version}"))

    async def orphans(self) -> list[ContainerNote]:
        return []

    async def adopt(self, note: ContainerNote, log_path: Path) -> Container | None:
        return None

    def expect(self, asleep: Mapping[str, VersionSpec]) -> None: ...

    async def clean_up(self, note: ContainerNote) -> None: ...

    async def prune(self, artifacts: Collection[str]) -> None: ...


class HostedProcesses(ProcessFolder):
    hosts: ClassVar[Sequence[socket.socket]] = ()

    def launch(self, name: str, argv: Sequence[str], *, environment: Mapping[str, str], **more: Any) -> Any:
        if "clipper.worker" not in argv:
            return super().launch(name, argv, environment=environment, **more)
        config = msgspec.json.decode(argv[-1]) | {"store": environment[STORE_VARIABLE]}
        self.hosts[config["index"] % len(self.hosts)].sendall(msgspec.json.encode(config) + b"\n")
        return Stub(ReplicaAddress(name, ""), os.getpid())

    def forget(self, name: str) -> None: ...


def put_in_place(module: ModuleType, name: str, stand_in: object) -> None:
    """Replace what a module has imported. Without a name that has moved, real processes start, which nobody ends."""
    if name not in module.__dict__:
        raise RuntimeError(f"{module.__name__} has no {name}: find which module uses it now")
    module.__dict__[name] = stand_in


def dialled(path: str) -> socket.socket:
    host = socket.socket(socket.AF_UNIX)
    host.connect(path)
    return host


if __name__ == "__main__":
    end = sys.argv.index("--")
    stubs, *hosts = sys.argv[1:end]
    sys.argv[1:] = sys.argv[end + 1 :]
    # A worker that is told something waits for the 31 others of its host.
    worker_process.APPLY_TIMEOUT_S = worker_process.CHECK_TIMEOUT_S = 300.0
    HostedProcesses.hosts = [dialled(path) for path in hosts]
    put_in_place(assembly, "open_launchers", lambda facilities, where: {"local": StubLauncher(stubs)})
    put_in_place(folders, "ProcessFolder", HostedProcesses)
    sys.exit(program.main())
