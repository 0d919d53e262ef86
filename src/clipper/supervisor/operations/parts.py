"""The parts of a supervisor."""

from dataclasses import dataclass

from clipper.base.processes.gpus import GpuWatch
from clipper.errors import Unavailable
from clipper.learning.stores.store import Store
from clipper.settings.version import ManagerName
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.history.events import EventKeeper
from clipper.supervisor.keepers.certificates import Certificates
from clipper.supervisor.keepers.cleaner import Forgetter
from clipper.supervisor.keepers.disks import Disks
from clipper.supervisor.keepers.keepers import Keepers
from clipper.supervisor.keepers.ramps import Ramps
from clipper.supervisor.keepers.sampling import Sampling
from clipper.supervisor.keepers.scaler import Scaler
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.operations.selections import SelectionChecker
from clipper.supervisor.operations.tokens import Tokens
from clipper.supervisor.reconciler.reconciler import REACH_TIMEOUT_S, Reconciler
from clipper.supervisor.registry.leadership import Leadership
from clipper.supervisor.workers.nodes import NodeFollower
from clipper.supervisor.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a supervisor that operations read and change.

    ``certificates`` is None without TLS, ``leadership`` without a registry that several servers share, and ``nodes`` if
    workers are on this machine.
    """

    catalog: Catalog
    manager: Manager
    workers: Workers
    reconciler: Reconciler
    artifacts: Artifacts
    selections: SelectionChecker
    forgetter: Forgetter
    scaler: Scaler
    keepers: Keepers
    store: Store
    tokens: Tokens
    ramps: Ramps
    sampling: Sampling
    events: EventKeeper
    disks: Disks
    gpus: GpuWatch
    certificates: Certificates | None = None
    leadership: Leadership | None = None
    default_manager: ManagerName = "local"
    nodes: NodeFollower | None = None


class OfParts:
    """Operations on the parts of a supervisor."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._catalog = parts.catalog
        self._manager = parts.manager
        self._workers = parts.workers
        self._reconciler = parts.reconciler
        self._artifacts = parts.artifacts
        self._ramps = parts.ramps
        self._recent = parts.sampling.sampler.recent

    async def _reach_workers(self, done: str) -> None:
        """Wait until every worker serves by the records. Raises Unavailable, which tells what is ``done``."""
        if not await self._reconciler.reach_workers(REACH_TIMEOUT_S):
            raise Unavailable(
                f"{done}, but a worker has not confirmed it within {REACH_TIMEOUT_S:g} s, and will as soon as it can: "
                "see clipper status"
            )
