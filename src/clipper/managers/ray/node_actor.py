"""What actors on nodes have in common: a folder, a guard that ends what they leave, and the node's artifacts."""

import asyncio
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import msgspec
import ray

import clipper
from clipper.managers.environments.builder import environments_root
from clipper.managers.ray.artifacts import NodeArtifacts
from clipper.managers.ray.messages import Description
from clipper.processes.folder import ProcessFolder

# How often to look whether the node's raylet, which started this process, is there.
LOOK_EVERY_S = 1.0


class NodeActor:
    """Ray runs an actor's methods on one event loop. All take and return what JSON can say, except ``receive``.

    What an actor starts is a process of its own, in the folder ``run`` of the actor's.
    """

    def __init__(self, build: str) -> None:
        """``build``: of what the actor is to start."""
        # A thread, because what Ray does at such an end may keep the event loop.
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
        # Beside the environments: what the node keeps longer than any actor.
        self._cache = self._environments.parent
        self._artifacts = NodeArtifacts(self._cache / "artifacts")
        # Ends with this process, however that ends, and then ends what this process leaves.
        self._guard = Popen(
            [sys.executable, "-m", "clipper.managers.ray.guard", str(self._folder)],
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": str(self._folder / "pythonpath")},
            start_new_session=True,
        )

    async def describe(self) -> Any:
        return msgspec.to_builtins(self._description)

    async def has_artifact(self, digest: str) -> bool:
        """Whether the node has it. If so, it stays for as long as this actor does."""
        return await asyncio.to_thread(self._artifacts.keep, digest)

    async def receive(self, digest: str, chunk: bytes) -> None:
        """Take the next bytes of an artifact's tar; no bytes mean that it is complete."""
        await asyncio.to_thread(self._artifacts.receive, digest, chunk)

    async def clean_up(self) -> None:
        """End what runs, and remove all that is left. The actor is of no use after that."""
        await asyncio.to_thread(self._guard.communicate)


def _end_with(raylet: int) -> None:
    """End this process once the raylet that started it has ended; the guard then ends what the actor started.

    Ray means to do so by itself. But where a raylet has ended because its head was lost, some actors went on for ever:
    unknown to the next cluster, with a container whose processors that cluster gives to others.
    """
    while os.getppid() == raylet:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
