"""The records of the registry. A record is stored as JSON; fields may be added with a default, never renamed."""

from collections.abc import Mapping

from msgspec import Struct

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import KeySnapshot, SharedApplication, SharedVersion
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec, VersionState
from clipper.values.types import Caller, ModelId, Role


class ApplicationRecord(SharedApplication, frozen=True, kw_only=True):
    """An application.

    Its ``selection`` is without ``code``, which is a folder: the registry does not know where folders are.

    Attributes:
        code: SHA-256 of the artifact with the modules of its own policy and loss; None if it has none.
        require_key: whether it answers only clients that send a key for it.
        ramps: how many ramps and watches there have been.
        ended_ramps: the last version of each linked model that was let through.
        max_replicas: see ``ApplicationSettings``.
    """

    code: str | None = None
    require_key: bool = False
    ramps: int = 0
    ended_ramps: tuple[EndedRamp, ...] = ()
    max_replicas: int | None = None

    @property
    def state_id(self) -> str:
        """The ``id``, or its substitute in an old record without an id."""
        return self.id or self.name


class ModelRecord(Struct, frozen=True):
    """A model.

    ``current`` is None until a first version is ready. ``previous`` was current before it and was not stopped; it runs
    for a rollback. If it has failed since, a rollback returns to another version: see ``rollout/rollbacks.py``.
    """

    name: str
    current: str | None = None
    previous: str | None = None


class VersionRecord(SharedVersion, frozen=True):
    """A version of a model; fields that ``api.schemas.Version`` has, too, are explained there.

    Attributes:
        replicas_wanted: the target number of replicas now.
        loads_with: the number or range of replicas that it gets when it is loaded again; None if it is not unloaded.
        kept: whether it runs although it is neither current nor previous (deployed with ``make_current: false``).
        promotion: the order of the request to become current; the highest wins. None if not requested.
        promoted_by: the caller of the last such request; None in an old record.
        log_tail: the last lines of the container whose start failed, or of the installer, oldest line first.
        is_new: whether it was deployed and has neither become current since nor been rolled back to, so that it may be
            ramped.
        warm_up_rows: bound on the rows of a warm-up batch, because more killed a replica; 0 means no warm-up, None no
            bound.
        unanswered: the model's message on the row that Clipper made to warm it up, while the version is not known to
            have answered any input; else empty.
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
    is_new: bool = False
    promoted_by: Caller | None = None
    stopped: str | None = None
    unanswered: str = ""
    loads_with: int | ReplicaRange | None = None

    @property
    def unknown(self) -> str | None:
        """The warning that a ready version is not known to answer; None if it has, or if no input was tried."""
        if not self.unanswered:
            return None
        return (
            f"no input that Clipper tried could be answered (last error: {self.unanswered}); deploy it with "
            "--sample INPUT to have it checked"
        )

    @property
    def id(self) -> ModelId:
        return ModelId(self.model, self.version)


class TokenRecord(Struct, frozen=True):
    """A token of the management API, by its SHA-256 in hex. ``expires_at``: in seconds since 1970; None is never."""

    name: str
    role: Role
    digest: str
    created_at: float
    expires_at: float | None = None


class KeyRecord(KeySnapshot, frozen=True, kw_only=True):
    """A key of the query port. ``created_at`` is in seconds since 1970."""

    created_at: float


Record = ApplicationRecord | ModelRecord | VersionRecord | TokenRecord | KeyRecord

# The kinds of records, and the names of their tables.
TABLES: Mapping[type[Record], str] = {
    ApplicationRecord: "applications",
    ModelRecord: "models",
    VersionRecord: "versions",
    TokenRecord: "tokens",
    KeyRecord: "keys",
}


def name_of(record: Record) -> str:
    """Return the record's name among those of its kind: ``MODEL:VERSION`` for a version."""
    return str(record.id) if isinstance(record, VersionRecord) else record.name
