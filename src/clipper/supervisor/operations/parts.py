"""What a supervisor consists of."""

from dataclasses import dataclass

from clipper.managers.manager import Manager
from clipper.selection.stores.store import Store
from clipper.settings.version import ManagerName
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.certificates import Certificates
from clipper.supervisor.keepers.disks import Disks
from clipper.supervisor.keepers.events import EventKeeper
from clipper.supervisor.keepers.forgetter import Forgetter
from clipper.supervisor.keepers.keepers import Keepers
from clipper.supervisor.keepers.ramps import Ramps
from clipper.supervisor.keepers.sampling import Sampling
from clipper.supervisor.keepers.scaler import Scaler
from clipper.supervisor.leadership.leadership import Leadership
from clipper.supervisor.operations.keys import Keys
from clipper.supervisor.operations.selections import SelectionChecker
from clipper.supervisor.operations.tokens import Tokens
from clipper.supervisor.rollout.reconciler import Reconciler
from clipper.supervisor.workers.nodes import NodeFollower
from clipper.supervisor.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Parts:
    """What operations look at and change.

    ``certificates`` is None without TLS, and ``leadership`` without a registry that several servers share.
    ``default_manager`` is that of deployments that name none. ``nodes`` is None if workers are on this machine.
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
    keys: Keys
    ramps: Ramps
    sampling: Sampling
    events: EventKeeper
    disks: Disks
    certificates: Certificates | None = None
    leadership: Leadership | None = None
    default_manager: ManagerName = "local"
    nodes: NodeFollower | None = None
