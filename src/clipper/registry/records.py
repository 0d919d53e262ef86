"""What the registry holds. A record is stored as JSON; fields may be added with a default, never renamed."""

from msgspec import Struct

from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link, Selection
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec, VersionState
from clipper.types import ModelId, Role


class ApplicationRecord(Struct, frozen=True):
    """An application.

    Attributes:
        input_type: ``str(InputType)``.
        default_output: JSON text, None if there is none.
        selection: without its ``code``, which is a folder: where that is, is not for the registry to say.
        id: names what it learns; an application that is made anew under an old name has another.
        code: SHA-256 of the artifact with the modules of its own policy and loss, None if it has none.
        require_key: it answers only who shows a key that is for it.
        max_in_flight, max_per_second: of its queries; None is no bound.
        newcomers: of its links' versions those that are ramped, or were stopped and nobody has done anything since.
        ramps: how many there have been.
    """

    name: str
    input_type: str
    slo_ms: float
    default_output: str | None = None
    selection: Selection = Selection()
    links: tuple[Link, ...] = ()
    id: str = ""
    code: str | None = None
    require_key: bool = False
    max_in_flight: int | None = None
    max_per_second: float | None = None
    newcomers: tuple[Newcomer, ...] = ()
    ramps: int = 0

    @property
    def state_id(self) -> str:
        """``id``, or what stands for it in a record from before there was selection."""
        return self.id or self.name


class ModelRecord(Struct, frozen=True):
    """``current`` is None until a first version has come up; ``previous`` is what a rollback returns to."""

    name: str
    current: str | None = None
    previous: str | None = None


class VersionRecord(Struct, frozen=True):
    """A version of a model.

    Attributes:
        replicas_wanted: the target number of replicas now.
        scaling: within what its load changes that; None if only an operator does.
        input_type: what its containers take; None until one has said so.
        runtime: free text from its containers.
        kept: runs although it is neither current nor previous (deployed with ``make_current: false``).
        promotion: it is to become current once it is up. Of two, the higher number wins; None if it is not to.
        created_at: seconds since the epoch.
        log_tail: of the container whose start failed, or of the installer, oldest line first.
        warning: how the model and the packages that it runs with do not quite fit; None if they do.
        predecessor: the version that was current when it was deployed; None if none was, or before that was noted.
        is_new: it was deployed and has not become current since, nor been rolled back to: it may be ramped.
        warm_up_rows: the most rows of a warm-up batch, as more have killed a replica; 0 is no warm-up, None no bound.
    """

    model: str
    version: str
    spec: VersionSpec
    batching: Batching
    cache: bool
    replicas_wanted: int
    created_at: float
    state: VersionState = "starting"
    input_type: str | None = None
    runtime: str = ""
    kept: bool = False
    promotion: int | None = None
    last_error: str | None = None
    log_tail: tuple[str, ...] = ()
    warning: str | None = None
    scaling: ReplicaRange | None = None
    warm_up_rows: int | None = None
    predecessor: str | None = None
    is_new: bool = False

    @property
    def id(self) -> ModelId:
        return ModelId(self.model, self.version)


class TokenRecord(Struct, frozen=True):
    """A token of the management API's. ``digest`` is its SHA-256, in hex: the token itself is nowhere kept."""

    name: str
    role: Role
    digest: str
    created_at: float


class KeyRecord(Struct, frozen=True):
    """A key of the query port's. ``digest`` is its SHA-256, in hex: the key itself is nowhere kept.

    Attributes:
        applications: those that it is for; empty is all.
        max_in_flight, max_per_second: of its queries; None is no bound.
    """

    name: str
    digest: str
    created_at: float
    applications: tuple[str, ...] = ()
    max_in_flight: int | None = None
    max_per_second: float | None = None


Record = ApplicationRecord | ModelRecord | VersionRecord | TokenRecord | KeyRecord
