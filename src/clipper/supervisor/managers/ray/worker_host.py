"""Query workers on the nodes of a Ray cluster: each is a process that a detached actor starts (``worker_actor.py``)."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from clipper.base.processes.process import ProcessRecord
from clipper.control.address import ControlAddress, parse_address
from clipper.supervisor.managers.logs import Lines
from clipper.supervisor.managers.ray.actor_processes import RENEW_EVERY_S, RayWorker
from clipper.supervisor.managers.ray.actors import CALL_TIMEOUT_S, Actors, launched
from clipper.supervisor.managers.ray.connection import Cluster, Connection
from clipper.supervisor.managers.ray.messages import (
    ListNodes,
    Nodes,
    Placement,
    WorkerLaunch,
    WorkerLaunched,
)
from clipper.supervisor.managers.worker_host import (
    ClusterHost,
    ClusterNode,
    RunningWorker,
    Sign,
    StartedWorker,
    WorkerStart,
)

# Grace period for open queries of a worker that is shut down instead of adopted. A worker drains within ten seconds.
END_GRACE_S = 11.0
# The timeout for Ray to start an actor. If it takes longer, Ray cannot, for example on a node that it empties, and the
# server's start no longer waits for this worker.
PLACE_TIMEOUT_S = 60.0
# The time for a process to be started. Its answer is awaited on its control channel.
LAUNCH_TIMEOUT_S = 30.0
# A call for logs waits for those of all nodes.
LOGS_TIMEOUT_S = 5.0


class RayWorkerHost(ClusterHost):
    """The host of query workers on nodes. It keeps its connection to the cluster until ``close``."""

    def __init__(
        self,
        cluster: Cluster,
        artifacts: Path,
        in_use: Path,
        ports: tuple[int, int],
        build: str,
        sign: Sign | None,
    ) -> None:
        """Make a host.

        ``ports`` are the first and the last port for control channels. ``build`` is the build of Clipper that each node
        has to have. ``sign`` signs for workers; None if none are started.
        """
        self._actors = Actors(Connection(cluster), artifacts, in_use, closes_when_idle=False)
        self._ports = ports
        self._build = build
        self._sign = sign
        # Workers that an earlier supervisor left, by the name of their actors.
        self._orphans: dict[str, WorkerLaunched] = {}
        # By an actor's name, the artifacts that were sent to it.
        self._provided: dict[str, set[str]] = {}

    async def nodes(self) -> list[ClusterNode]:
        found = await self._actors.connection.ask(ListNodes, CALL_TIMEOUT_S)
        return msgspec.convert(found, list[ClusterNode])

    async def start(self, start: WorkerStart) -> StartedWorker:
        actor = f"{start.name}.g{start.instance}"
        return await self._actors.start(actor, lambda: self._start(actor, start))

    async def regain(self, name: str, node: str) -> ProcessRecord | None:
        regained = await self._actors.regain(name, WorkerLaunched)
        if regained is None:
            return None
        actor, found = regained
        if found.record.extra.get("node") != node:  # its node was lost and is back
            await self._actors.kill(actor)
            self._actors.drop(actor)
            return None
        self._orphans[actor] = found
        return found.record

    async def adopt(self, record: ProcessRecord) -> RayWorker:
        actor = next(actor for actor, left in self._orphans.items() if left.record == record)
        # The age and the signer of its certificate are not known.
        return self._worker(actor, self._orphans.pop(actor), renew_after_s=0.0)

    async def orphans(self) -> list[ProcessRecord]:
        self._orphans = await self._actors.orphans(WorkerLaunched)
        return [left.record for left in self._orphans.values()]

    async def end(self, record: ProcessRecord) -> None:
        worker = await self.adopt(record)
        await worker.stop(END_GRACE_S)
        await worker.end(record.name)

    async def sees(self, process: RunningWorker) -> bool:
        return await _own(process).is_seen()

    async def logs(
        self, process: RunningWorker, name: str | None, places: Mapping[str, str], lines: int
    ) -> dict[str, tuple[Lines, str]]:
        actor = _own(process).actor
        found = await self._actors.call(actor, "read_logs", name, dict(places), lines, within_s=LOGS_TIMEOUT_S)
        return msgspec.convert(found, dict[str, tuple[Lines, str]])

    async def provide(self, process: RunningWorker, folders: Iterable[str]) -> None:
        worker = _own(process)
        provided = self._provided.setdefault(worker.actor, set())
        for digest in {folder.partition("/")[0] for folder in folders} - provided:
            await self._actors.deliver(worker.actor, worker.node, digest, lambda: None)
            provided.add(digest)

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        if process is not None:
            worker = _own(process)
            self._provided.pop(worker.actor, None)
            await worker.end(name)

    def close(self) -> None:
        self._actors.connection.close()

    async def _start(self, actor: str, start: WorkerStart) -> StartedWorker:
        # A worker takes no processor of Ray's, like the server's other processes.
        placement = Placement(cpus=0.0, nodes=Nodes(address=start.node))
        await self._actors.create(actor, placement, "worker", self._build, PLACE_TIMEOUT_S)
        await self._identify(actor, start.instance)
        launch = WorkerLaunch(start.name, dict(start.config), dict(start.environment), dict(start.note))
        text = msgspec.json.encode(launch).decode()
        answer = await self._actors.call(actor, "launch", text, self._ports, within_s=LAUNCH_TIMEOUT_S)
        started = launched(answer, WorkerLaunched)
        control = parse_address(str(started.record.extra["control"]))
        return StartedWorker(self._worker(actor, started, RENEW_EVERY_S), control)

    def _worker(self, actor: str, started: WorkerLaunched, renew_after_s: float) -> RayWorker:
        instance = int(started.record.extra["instance"])
        renew = None if self._sign is None else partial(self._identify, actor, instance)
        return RayWorker(self._actors, actor, started.node, started.record, renew, renew_after_s)

    async def _identify(self, actor: str, instance: int) -> None:
        """Let a worker show a new certificate, for a new key that stays on its node."""
        assert self._sign is not None, "workers are started on nodes"
        request = str(await self._actors.call(actor, "request_identity", within_s=CALL_TIMEOUT_S))
        certificate, authority = self._sign(request.encode(), instance)
        await self._actors.call(
            actor, "take_identity", certificate.decode(), authority.decode(), within_s=CALL_TIMEOUT_S
        )


def _own(process: RunningWorker) -> RayWorker:
    assert isinstance(process, RayWorker)
    return process
