"""A manager on folders of its own, with one slot, and models in its artifacts."""

import asyncio
import hashlib
import itertools
import os
import sys
from collections.abc import Coroutine, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import docker

import clipper
from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import pids
from clipper.control.snapshot import ReplicaAddress
from clipper.model.protocol import messages
from clipper.model.protocol.messages import encode_hello
from clipper.settings.server import ServerSettings, Transport
from clipper.settings.version import ManagerName, VersionSpec
from clipper.supervisor.managers.caller import Sample, connect
from clipper.supervisor.managers.environments.provider import EnvironmentProvider
from clipper.supervisor.managers.launcher import Facilities
from clipper.supervisor.managers.local.launcher import LocalLauncher
from clipper.supervisor.managers.manager import Manager, SlotStatus
from clipper.supervisor.managers.open import open_launchers
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.values.records import ValueType
from clipper.values.types import DType, ModelId
from tests.docker_daemon import BASE_IMAGE
from tests.waiting import TIMEOUT_S, until_async

SLOT = Slot("sum", "1", 1)
# Not those of a server that somebody runs beside the tests.
RAY_PORTS = (20000, 20999)
SUM = "def predict(inputs): return [float(sum(row)) for row in inputs]\n"


class OneSample:
    """A ``SampleSource`` of one sample, which remembers over how many rows of it containers have ended."""

    def __init__(self, sample: Sample | None) -> None:
        self._sample = sample
        self.origin = None if sample is None else sample.origin
        self.deaths: list[int] = []

    def known_type(self, _id: ModelId) -> str | None:
        return None

    async def find(self, _id: ModelId, _type: ValueType) -> Sample | None:
        return self._sample

    def has_tried(self, _id: ModelId, failure: str | None) -> None:
        """It knows all that it tries."""

    def has_killed(self, _id: ModelId, rows: int) -> bool:
        self.deaths.append(rows)
        return False


class Bench:
    """``kind`` is that of its models' containers; ``environ`` leads to a dockerd, where one is needed.

    ``transport`` and ``network`` are those of containers in Docker. From the container ``fork_from`` of this machine on
    they are forked: none of them by default.
    """

    def __init__(
        self,
        path: Path,
        kind: ManagerName = "local",
        environ: Mapping[str, str] | None = None,
        batch_timeout_s: float = 30.0,
        sample: Sample | None = None,
        base_image: str = BASE_IMAGE,
        transport: Transport = "unix",
        network: str = "host",
        fork_from: int = 1_000_000,
    ) -> None:
        self.path = path
        self.fork_from = fork_from
        self.kind: ManagerName = kind
        self.transport = transport
        self.environ = environ or {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
        self.logs, python_path = self._folder("logs"), self._folder("pythonpath")
        if not (python_path / "clipper").exists():
            (python_path / "clipper").symlink_to(Path(clipper.__file__).parent)
        self.processes = ProcessFolder(self._folder("run"), os.environ, python_path)
        self.facilities = Facilities(
            home=path,
            artifacts=self._folder("artifacts"),
            scratch=self._folder("scratch"),
            sockets=path / "run",
            environments=path / "environments",
            processes=self.processes,
            logs=self.logs,
            environ=self.environ,
            settings=ServerSettings(
                start_method="forkserver",
                docker_base_image=base_image,
                docker_network=network,
                docker_transport=transport,
                ray_address=self.environ.get("RAY_ADDRESS", ""),
                ray_ports="-".join(map(str, RAY_PORTS)),
                ray_python=Path(self.environ.get("CLIPPER_RAY_PYTHON", sys.executable)),
            ),
        )
        self.launchers = open_launchers(self.facilities)
        environments = EnvironmentProvider(self.processes, self.facilities.artifacts, path / "environments")
        self.launcher = self.launchers["local"] = LocalLauncher(self.facilities, environments, fork_from=fork_from)
        numbers = itertools.count(1)
        self.samples = OneSample(sample)

        self.manager = Manager(
            self.launchers, self.logs, lambda: next(numbers), lambda _: batch_timeout_s, self.samples, lambda: None
        )

    def _folder(self, name: str) -> Path:
        (self.path / name).mkdir(exist_ok=True)
        return self.path / name

    def model(self, body: str, artifact: str = "", **fields: Any) -> VersionSpec:
        """The spec of a model whose module is ``body`` with a function ``predict``."""
        artifact = artifact or hashlib.sha256(body.encode()).hexdigest()
        code = self.facilities.artifacts / artifact / "code"
        code.mkdir(parents=True, exist_ok=True)
        (code / "my_model.py").write_text(body)
        return VersionSpec(artifact, "import", "my_model:predict", manager=self.kind, **fields)

    @property
    def status(self) -> SlotStatus:
        (status,) = self.manager.slots()
        return status

    @property
    def failure(self) -> str:
        """Why its last start failed, and the last lines of it."""
        assert self.status.start_failure is not None
        return "\n".join((self.status.start_failure.reason, *self.status.start_failure.log_tail))

    async def until_dead(self) -> str:
        """The reason of its death."""
        await until_async(lambda: self.status.phase == "dead")
        assert self.status.last_error is not None
        return self.status.last_error

    async def ready(self) -> int:
        """The pid, once it is ready."""
        await until_async(lambda: self.status.phase != "starting")
        assert self.status.phase == "ready", self.failure
        replica = self.status.replica
        assert replica is not None and replica.pid is not None
        return replica.pid

    async def predict(self) -> asyncio.StreamWriter:
        """Send one batch of one row, and do not wait for its answer."""
        replica = self.status.replica
        assert replica is not None
        assert replica.address is not None
        return await send_batch(replica.address)

    def close(self) -> None:
        """End what the manager left running."""
        self.processes.sweep(keep=())
        if self.kind == "ray" and any(status.replica for status in self.manager.slots()):
            asyncio.run(self._end_orphans())
        if self.kind == "docker":
            with closing(docker.DockerClient(base_url=self.environ["DOCKER_HOST"], timeout=round(TIMEOUT_S))) as client:
                for container in client.containers.list(all=True, ignore_removed=True):
                    container.remove(force=True)

    async def _end_orphans(self) -> None:
        # Of a loop that has ended, the manager is of no use any more.
        for note in await (launcher := open_launchers(self.facilities)["ray"]).orphans():
            if (container := await launcher.adopt(note, self.manager.log_path(note.slot))) is not None:
                await container.stop(grace_s=0)
            await launcher.clean_up(note)

    def pids(self) -> list[int]:
        """Of all processes that run for it."""
        run_folder = str(self.path / "run")
        return [pid for pid in pids() if mark_of(pid).startswith(run_folder)]

    def leaves_nothing(self) -> None:
        assert list(self.facilities.scratch.iterdir()) == []
        assert list((self.path / "run").iterdir()) == []


def run(coroutine: Coroutine[Any, Any, None], bench: Bench | None = None) -> None:
    """In a time that no test needs. The fork servers of a bench end with it."""

    async def whole() -> None:
        try:
            await asyncio.wait_for(coroutine, 200)
        finally:
            if bench is not None:
                await bench.launcher.forks.end_all()

    asyncio.run(whole())


async def send_batch(address: ReplicaAddress) -> asyncio.StreamWriter:
    reader, writer = await connect(address)
    writer.write(encode_hello(address.token))
    await reader.read(4096)
    writer.writelines(messages.encode_predict(1, DType.FLOAT64, 0, [bytes(8)]))
    return writer
