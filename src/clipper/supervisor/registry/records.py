"""The records of the registry. A record is stored as JSON; fields may be added with a default, never renamed."""

from collections.abc import Mapping

from msgspec import Struct

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link, Selection
from clipper.settings.pipeline import Step, Wiring
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec, VersionState
from clipper.values.types import Caller, ModelId, Role


class ApplicationRecord(Struct, frozen=True):
    """An application.

    Attributes:
        input_type: ``str(ValueType)``.
        default_output: JSON text; None if it has no default.
        selection: its selection without ``code``, which is a folder: the registry does not know where folders are.
        id: the key of its learned state; a new application with an old name has another id.
        code: SHA-256 of the artifact with the modules of its own policy and loss; None if it has none.
        require_key: whether it answers only clients that send a key for it.
        max_in_flight, max_per_second: limits on its queries; None means no limit.
        newcomers: versions of its links that are ramped, or that were stopped, if no operator has acted on them since.
        ramps: how many ramps and watches there have been.
        watched: versions that were deployed or linked in place of others while the policy does not learn. They answer
            all queries of their links, and are stopped if they fail more than the versions before.
        ended_ramps: the last version of each linked model that was let through.
        waking_slo_ms: the SLO while its models wake; None means ``slo_ms``.
        show_model: whether its answers say which versions gave them.
        null_is_nan, ignore_unknown_fields: how inputs are read.
        steps, output: see ``ApplicationSettings``.
        nan_as_text: whether NaN and infinity are texts in answers in JSON, and not null.
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
    ended_ramps: tuple[EndedRamp, ...] = ()
    waking_slo_ms: float | None = None
    show_model: bool = True
    watched: tuple[Newcomer, ...] = ()
    null_is_nan: bool = False
    ignore_unknown_fields: bool = False
    steps: dict[str, Step] = {}
    output: Wiring | None = None
    nan_as_text: bool = False

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


class VersionRecord(Struct, frozen=True):
    """A version of a model.

    Attributes:
        replicas_wanted: the target number of replicas now.
        scaling: the range in which its load decides that; None if it is a fixed number.
        loads_with: the number or range of replicas that it gets when it is loaded again; None if it is not unloaded.
        input_type: the type that its containers take; None until a container has stated it.
        runtime: free text from its containers.
        kept: whether it runs although it is neither current nor previous (deployed with ``make_current: false``).
        promotion: the order of the request to become current; the highest wins. None if not requested.
        promoted_by: the caller of the last such request; None in an old record.
        created_at: seconds since the epoch.
        log_tail: the last lines of the container whose start failed, or of the installer, oldest line first.
        warning: a mismatch between the model and the packages that it runs with; None if they match.
        predecessor: the version that was current when this one was deployed; None if there was none, or in an old
            record.
        is_new: whether it was deployed and has neither become current since nor been rolled back to, so that it may be
            ramped.
        stopped: why a guardrail stopped it, or that its replicas did not stay up when another version took its place;
            None if neither, or if a later version was deployed over it since.
        warm_up_rows: bound on the rows of a warm-up batch, because more killed a replica; 0 means no warm-up, None no
            bound.
        unanswered: the model's message on the row that Clipper made to warm it up, while the version is not known to
            have answered any input; else empty.
        output_type: the type of its outputs, as it was declared, or that of its first answer, whose lengths bind no
            other; None if it is not known. What was learned first stays.
        output_is_declared: whether it was declared, at deployment or by the container.
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
    promoted_by: Caller | None = None
    stopped: str | None = None
    unanswered: str = ""
    loads_with: int | ReplicaRange | None = None
    output_type: str | None = None
    output_is_declared: bool = False

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
    """A token of the management API; only its SHA-256, in hex, is stored.

    ``expires_at`` is in seconds since 1970; None means never.
    """

    name: str
    role: Role
    digest: str
    created_at: float
    expires_at: float | None = None


class KeyRecord(Struct, frozen=True):
    """A key of the query port; only its SHA-256, in hex, is stored.

    Empty ``applications`` mean all. A limit of None is no limit. ``expires_at`` is in seconds since 1970; None means
    never.
    """

    name: str
    digest: str
    created_at: float
    applications: tuple[str, ...] = ()
    max_in_flight: int | None = None
    max_per_second: float | None = None
    expires_at: float | None = None


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
