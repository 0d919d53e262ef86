"""The common part of actors on nodes: a folder, the node's artifacts, a process and its restarts, a guard."""

import asyncio
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Generic, TypeVar

import msgspec
import ray

import clipper
from clipper.base.processes.folder import ProcessFolder
from clipper.supervisor.managers.environments.builder import environments_root
from clipper.supervisor.managers.launcher import Running
from clipper.supervisor.managers.ray.actor_tasks import Reviver, WatchedTasks
from clipper.supervisor.managers.ray.artifacts import NodeArtifacts
from clipper.supervisor.managers.ray.messages import Description

# How often to look whether the node's raylet, which started this process, is there.
LOOK_EVERY_S = 1.0


# The process that an actor runs: a ``ManagedProcess`` or a ``LocalContainer``.
P = TypeVar("P", bound=Running)


class NodeActor(Generic[P]):
    """An actor on a node. Ray runs its methods on one event loop.

    All methods take and return JSON values, except ``receive``. An actor starts a process of its own, in its folder
    ``run``.
    """

    def __init__(self, build: str) -> None:
        """Make the folder. ``build`` is that of the code that the actor shall start."""
        # A thread, because Ray may block the event loop when the raylet ends.
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        node = ray.get_runtime_context().get_node_id()
        self._description = Description(node, ray.util.get_node_ip_address(), build)
        self._folder = Path(tempfile.mkdtemp(prefix="clipper-"))
        for name in ("run", "pythonpath"):
            (self._folder / name).mkdir()
        # Only Clipper is found there, whatever else this interpreter has.
        (self._folder / "pythonpath" / "clipper").symlink_to(Path(clipper.__file__).parent)
        self._processes = ProcessFolder(self._folder / "run", os.environ, self._folder / "pythonpath")
        self._environments = environments_root(os.environ)
        # Beside the environments are files that the node keeps longer than any actor.
        self._cache = self._environments.parent
        self._artifacts = NodeArtifacts(self._cache / "artifacts")
        self._process: P | None = None
        self._watched: WatchedTasks | None = None
        self._reviver: Reviver | None = None
        # The guard ends with this process, however that ends, and then ends everything that this process leaves.
        self._guard = Popen(
            [sys.executable, "-m", "clipper.supervisor.managers.ray.guard", str(self._folder)],
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": str(self._folder / "pythonpath")},
            start_new_session=True,
        )

    async def describe(self) -> Any:
        return msgspec.to_builtins(self._description)

    async def has_artifact(self, digest: str) -> bool:
        """Return whether the node has an artifact. If so, it stays for as long as this actor does."""
        return await asyncio.to_thread(self._artifacts.keep, digest)

    async def receive(self, digest: str, chunk: bytes) -> None:
        """Take the next bytes of an artifact's tar; no bytes mean that it is complete."""
        await asyncio.to_thread(self._artifacts.receive, digest, chunk)

    async def is_up(self) -> bool:
        return self._process is not None and not self._process.exited.is_set()

    async def ended(self) -> str:
        """Wait until the present process has ended; return how."""
        process = self._running
        await process.exited.wait()
        return self._how_it_ended(process)

    async def stop(self, grace_s: float) -> str:
        """End its process, and wait; return how it ended."""
        self._let_end()
        process = self._running
        await process.stop(grace_s)
        return self._how_it_ended(process)

    async def clean_up(self) -> None:
        """End the process, and remove everything. The actor is of no use after that."""
        self._let_end()
        if self._watched is not None:
            self._watched.cancel()
        if self._process is not None:
            await self._process.stop(grace_s=0)
        await asyncio.to_thread(self._guard.communicate)

    @property
    def _running(self) -> P:
        assert self._process is not None, "it was launched"
        return self._process

    def _let_end(self) -> None:
        """Stop restarting processes that end from now on."""
        if self._reviver is not None:
            self._reviver.end()

    async def _has_died(self) -> None:
        await self._running.exited.wait()

    def _how_it_ended(self, process: P) -> str:
        return process.how_it_ended


def _end_with(raylet: int) -> None:
    """End this process once the raylet that started it has ended; the guard then ends what the actor started.

    Ray is meant to do this itself. But when a raylet ended because its head was lost, some actors ran for ever, while
    their processors were given to others.
    """
    while os.getppid() == raylet:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
