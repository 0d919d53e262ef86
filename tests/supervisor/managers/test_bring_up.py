"""The bring-up of a container on another machine, whose process ids say nothing here."""

import asyncio
import os
from pathlib import Path

import pytest

from clipper.base.processes import proc
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ContainerFailed
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.replica import BringUp


class Elsewhere:
    """A ``Container`` that never listens. On this machine its process id is that of a process that computes."""

    warning = None
    how_it_ended = "is gone"
    is_lost = False

    def __init__(self, node: str | None) -> None:
        self.node = node
        self.address = ReplicaAddress("m:1#1.g1", "unix:/nowhere/s")
        self.exited = asyncio.Event()

    @property
    def pid(self) -> int:
        return os.getpid()

    async def has_exited_within(self, seconds: float) -> bool:
        return False

    async def stop(self, grace_s: float) -> None: ...

    async def save_log(self) -> None: ...

    def note_ready(self) -> None: ...


@pytest.mark.parametrize(("node", "looks"), [(None, True), ("10.0.0.2 (ab)", False)])
def test_only_processes_of_this_machine_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str | None, looks: bool
) -> None:
    looked = []
    monkeypatch.setattr(proc, "session_busy_s", looked.append)
    note = ContainerNote("m", "1", 1, 1, "unix:/nowhere/s", VersionSpec("a", "import", "m:f"))

    async def test() -> None:
        with pytest.raises(ContainerFailed, match="was not ready"):
            await BringUp(note, Elsewhere(node), tmp_path / "log", 0, 0.1).answering()

    asyncio.run(test())
    assert bool(looked) is looks
