"""Keeps query workers running on the nodes of a cluster that are up."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from clipper.errors import Unavailable
from clipper.supervisor.catalog import Numbers
from clipper.supervisor.managers.logs import FIRST_PLACE, Lines
from clipper.supervisor.managers.worker_host import ClusterHost, ClusterNode, RunningWorker
from clipper.supervisor.rollout.workers import MAX_WORKERS_ON_NODES, place_workers
from clipper.supervisor.workers.settings import WorkerSettings, worker_note
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import ASKED_AT_ONCE, Workers

log = logging.getLogger(__name__)

# A joining node gets its workers only seconds later anyway: its actor and its worker have to start.
LOOK_EVERY_S = 1.0


@dataclass(eq=False)
class NodeFollower:
    """Watches which nodes are up, and keeps ``_per_node`` workers on each.

    Workers of a node that the cluster empties say for ``_drain_delay_s`` that they are not ready, before they drain.
    ``_on_change`` is called when workers come or go. ``_empty`` has replicas moved away from nodes.
    """

    _host: ClusterHost
    _workers: Workers
    _per_node: int
    _drain_delay_s: float
    _on_change: Callable[[], None]
    _empty: Callable[[Collection[str]], None]

    def __post_init__(self) -> None:
        # By node that the cluster empties, since when that is known.
        self._draining: dict[str, float] = {}
        # The placement at the last look: a draining worker leaves by itself.
        self._placed: dict[int, str] = {}
        self._trouble = "the cluster was not asked yet"
        self._lacking = 0
        self._is_closed = False

    async def run(self) -> None:
        """Look again and again. While the cluster does not answer, workers stay where they are."""
        while not self._is_closed:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        try:
            nodes = await self._host.nodes()
        except Unavailable as error:
            if not self._trouble:
                log.warning("the server does not know which nodes are up: %(error)s", {"error": error})
            self._trouble = str(error)
            return
        self._trouble = ""
        up, now_s = addresses_of(nodes), asyncio.get_running_loop().time()
        draining = up - addresses_of([node for node in nodes if not node.is_draining])
        self._draining = {node: self._draining.get(node, now_s) for node in sorted(draining)}
        staying = {node for node, since_s in self._draining.items() if now_s - since_s < self._drain_delay_s}
        self._workers.announce_leaving(staying)
        before = self._workers.placed
        placed = place_workers(up - draining, self._per_node, before, staying)
        self._lacking = len(up - draining) * self._per_node - sum(node not in staying for node in placed.values())
        if placed != before:
            self._workers.place(placed, up)
        now = self._workers.placed
        if now != self._placed:
            nodes_with = ", ".join(sorted(set(now.values()))) or "of which none is up"
            log.info("%(count)d query workers on the nodes %(address)s", {"count": len(now), "address": nodes_with})
            self._placed = now
            self._on_change()
        # Workers first: their open queries need replicas, and there may be no room for new replicas yet.
        self._empty(draining - set(now.values()))

    async def logs(self, name: str | None, places: Mapping[str, str], lines: int) -> dict[str, tuple[Lines, str]]:
        """Return the logs that workers have written on their nodes, by name, in the form of ``logs_after``.

        ``name``: only this log, such as ``access-3``. If a worker cannot be asked, a line says so.
        """
        room = asyncio.Semaphore(ASKED_AT_ONCE)

        async def read(worker: WorkerProcess, process: RunningWorker) -> dict[str, tuple[Lines, str]]:
            try:
                async with room:
                    return await self._host.logs(process, name, places, lines)
            except Unavailable as error:
                told = () if worker.name in places else (f"its log on {worker.node} cannot be read now: {error}",)
                return {worker.name: (told, places.get(worker.name, FIRST_PLACE))}

        found: dict[str, tuple[Lines, str]] = {}
        asked = [one for one in self._workers if name is None or name.endswith(f"-{one.index}")]
        for logs in await asyncio.gather(*(read(one, one.process) for one in asked if one.process is not None)):
            found |= logs
        return found

    def close(self) -> None:
        """Stop looking. Running workers go on."""
        self._is_closed = True
        self._host.close()

    def problems(self) -> list[str]:
        problems = [f"the server does not know which nodes are up: {self._trouble}"] if self._trouble else []
        if self._lacking:
            problems.append(
                f"{self._lacking} query workers are not started: all nodes together have {MAX_WORKERS_ON_NODES} "
                "at most; give a lower --workers-per-node"
            )
        return problems


def addresses_of(nodes: list[ClusterNode]) -> set[str]:
    """Return the addresses at which nodes are up. Nodes with the same address share its ports, so they count as one."""
    return {node.address for node in nodes if node.is_up}


async def own_address(host: ClusterHost) -> str | None:
    """Return the address of this machine in the cluster; None if the cluster does not know it."""
    try:
        nodes = await host.nodes()
    except Unavailable as error:
        log.warning("this machine's address in the cluster is not known: %(error)s", {"error": error})
        return None
    return next((node.address for node in nodes if node.is_own and node.is_up), None)


async def take_over(host: ClusterHost, workers: Workers, settings: WorkerSettings | None, instances: Numbers) -> None:
    """Adopt workers that an earlier supervisor left on nodes, and end the others; end all if ``settings`` is None."""
    unwanted = []
    for record in await host.orphans():
        note = worker_note(record)
        if note is not None:
            instances.pass_over(note.instance)
        if settings is None or not await workers.adopt(record, settings):
            unwanted.append(record)
    await asyncio.gather(*map(host.end, unwanted))
    if settings is None:
        host.close()
