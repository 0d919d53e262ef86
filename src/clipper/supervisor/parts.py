"""What a supervisor consists of."""

from dataclasses import dataclass

from clipper.managers.manager import Manager
from clipper.managers.usage import UsageKeeper
from clipper.selection.stores.store import Store
from clipper.supervisor.artifacts import Artifacts
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.certificates import Certificates
from clipper.supervisor.forgetter import Forgetter
from clipper.supervisor.keepers import Keepers
from clipper.supervisor.keys import Keys
from clipper.supervisor.ramps import Ramps
from clipper.supervisor.reconciler import Reconciler
from clipper.supervisor.scaler import Scaler
from clipper.supervisor.selections import SelectionChecker
from clipper.supervisor.tokens import Tokens
from clipper.supervisor.workers import Workers


@dataclass(frozen=True, slots=True)
class Parts:
    """What operations look at and change. ``certificates`` is None without TLS."""

    catalog: Catalog
    manager: Manager
    usage: UsageKeeper
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
    certificates: Certificates | None = None
