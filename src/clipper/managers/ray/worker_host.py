"""Query workers on the nodes of a Ray cluster: each is a process that a detached actor starts (``worker_actor.py``)."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from clipper.control.address import ControlAddress, parse_address
from clipper.errors import ContainerFailed, Unavailable
from clipper.managers.logs import Lines
from clipper.managers.ray.actors import CALL_TIMEOUT_S, Actors
from clipper.managers.ray.connection import ActorGone, Cluster, Connection
from clipper.managers.ray.messages import (
    Create,
    Description,
    ListNodes,
    Nodes,
    NotLaunched,
    Placement,
    WorkerLaunch,
    WorkerLaunched,
)
from clipper.managers.ray.worker import RENEW_EVERY_S, RayWorker
from clipper.managers.worker_host import ClusterNode, RunningWorker, Sign, StartedWorker, WorkerStart
from clipper.processes.process import ProcessRecord

# For the open queries of one that is not gone on with. A worker drains within ten seconds.
END_GRACE_S = 11.0
# For Ray to start an actor: longer means that it cannot, as on a node that it empties. What waits for workers that come
# up waits no longer for this one then.
PLACE_TIMEOUT_S = 60.0
# For a process to be started. That it answers is waited for by its control channel.
LAUNCH_TIMEOUT_S = 30.0
# Who asks for logs waits for those of all nodes.
LOGS_TIMEOUT_S = 5.0


class RayWorkerHost:
    """A ``ClusterHost``. It keeps its connection to the cluster until ``close``."""

    def __init__(
        self,
        cluster: Cluster,
        artifacts: Path,
        in_use: Path,
        ports: tuple[int, int],
        build: str,
        sign: Sign | None,
    ) -> None:
        """
        Args:
            artifacts: the folder of unpacked artifacts, by their digests.
            in_use: a file that is there while workers of this home may run on nodes.
            ports: the first and the last port that control channels listen on.
            build: of Clipper, which each node has to have.
            sign: signs for workers, which show each other and the supervisor what it signed; None if none are started.
        """
        self._actors = Actors(Connection(cluster), artifacts, in_use, closes_when_idle=False)
        self._ports = ports
        self._build = build
        self._sign = sign
        # By the name of their actors.
        self._left: dict[str, WorkerLaunched] = {}
        # Artifacts that an actor has had, by the actor's name.
        self._provided: dict[str, set[str]] = {}

    @property
    def is_away(self) -> bool:
        return False

    async def nodes(self) -> list[ClusterNode]:
        found = await self._actors.connection.ask(ListNodes, CALL_TIMEOUT_S)
        return msgspec.convert(found, list[ClusterNode])

    async def start(self, start: WorkerStart) -> StartedWorker:
        actors, actor = self._actors, f"{start.name}.g{start.instance}"
        actors.use(actor)
        try:
            await actors.remove_strays()
            try:
                return await self._start(actor, start)
            except BaseException as error:
                await actors.kill(actor)
                if isinstance(error, ActorGone):
                    raise Unavailable(f"its node was lost, or Ray could not start its actor: {error}") from error
                raise
        except BaseException:
            actors.drop(actor)
            raise

    async def regain(self, name: str, node: str) -> ProcessRecord | None:
        regained = await self._actors.regain(name, WorkerLaunched)
        if regained is None:
            return None
        actor, launched = regained
        if launched.record.extra.get("node") != node:  # its node was lost, and is back
            await self._actors.kill(actor)
            self._actors.drop(actor)
            return None
        self._left[actor] = launched
        return launched.record

    async def adopt(self, record: ProcessRecord) -> RayWorker:
        actor = next(actor for actor, left in self._left.items() if left.record == record)
        # How old its certificate is, and who signed it, is not known.
        return self._worker(actor, self._left.pop(actor), renew_after_s=0.0)

    async def left(self) -> list[ProcessRecord]:
        self._left = await self._actors.left(WorkerLaunched)
        return [left.record for left in self._left.values()]

    async def end(self, record: ProcessRecord) -> None:
        worker = await self.adopt(record)
        await worker.stop(END_GRACE_S)
        await self._actors.end(record.name, worker)

    async def sees(self, process: RunningWorker) -> bool:
        return await _own(process).is_seen()

    async def logs(
        self, process: RunningWorker, name: str | None, places: Mapping[str, str], lines: int
    ) -> dict[str, tuple[Lines, str]]:
        actor = _own(process).actor
        try:
            found = await self._actors.call(actor, "read_logs", name, dict(places), lines, within_s=LOGS_TIMEOUT_S)
        except ActorGone as error:
            raise Unavailable(f"its actor is gone: {error}") from error
        return msgspec.convert(found, dict[str, tuple[Lines, str]])

    async def provide(self, process: RunningWorker, folders: Iterable[str]) -> None:
        worker = _own(process)
        provided = self._provided.setdefault(worker.actor, set())
        for digest in {folder.partition("/")[0] for folder in folders} - provided:
            try:
                await self._actors.deliver(worker.actor, worker.node, digest, lambda: None)
            except ActorGone as error:
                raise Unavailable(f"its actor is gone: {error}") from error
            provided.add(digest)

    async def clean_up(self, name: str, process: RunningWorker | None, control: ControlAddress | None) -> None:
        if process is not None:
            worker = _own(process)
            self._provided.pop(worker.actor, None)
            await self._actors.end(name, worker)

    def close(self) -> None:
        self._actors.connection.close()

    async def _start(self, actor: str, start: WorkerStart) -> StartedWorker:
        # It takes no processor of Ray's: what a worker needs is there as it is for the server's other processes.
        placement = Placement(cpus=0.0, nodes=Nodes(address=start.node))
        described = await self._actors.connection.ask(
            lambda number: Create(number, actor, placement, "worker"), PLACE_TIMEOUT_S
        )
        description = msgspec.convert(described, Description)
        if description.build != self._build:
            raise ContainerFailed(
                f"the node at {description.host} has Clipper {description.build}, and the server {self._build}: "
                "install the same version on every node"
            )
        await self._identify(actor, start.instance)
        launch = WorkerLaunch(start.name, dict(start.config), dict(start.environment), dict(start.note))
        answer = await self._actors.call(
            actor, "launch", msgspec.json.encode(launch).decode(), self._ports, within_s=LAUNCH_TIMEOUT_S
        )
        outcome = msgspec.convert(answer, WorkerLaunched | NotLaunched)
        if isinstance(outcome, NotLaunched):
            raise ContainerFailed(outcome.reason, list(outcome.log_tail))
        control = parse_address(str(outcome.record.extra["control"]))
        return StartedWorker(self._worker(actor, outcome, RENEW_EVERY_S), control)

    def _worker(self, actor: str, launched: WorkerLaunched, renew_after_s: float) -> RayWorker:
        instance = int(launched.record.extra["instance"])
        renew = None if self._sign is None else partial(self._identify, actor, instance)
        return RayWorker(self._actors, actor, launched.node, launched.record, renew, renew_after_s)

    async def _identify(self, actor: str, instance: int) -> None:
        """Let a worker show a new certificate, of a new key that stays on its node."""
        assert self._sign is not None, "workers are started on nodes"
        request = str(await self._actors.call(actor, "request_identity", within_s=CALL_TIMEOUT_S))
        certificate, authority = self._sign(request.encode(), instance)
        await self._actors.call(
            actor, "take_identity", certificate.decode(), authority.decode(), within_s=CALL_TIMEOUT_S
        )


def _own(process: RunningWorker) -> RayWorker:
    assert isinstance(process, RayWorker)
    return process
