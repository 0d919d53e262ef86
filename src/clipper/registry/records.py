"""What the registry holds. A record is stored as JSON; fields may be added with a default, never renamed."""

from typing import Literal

from msgspec import Struct

from clipper.control.snapshot import Batching, Link, Newcomer, Selection
from clipper.scaling import ReplicaRange
from clipper.types import Framework, ModelId

VersionState = Literal["starting", "ready", "failed", "sleeping"]
Loader = Literal["file", "import", "binary", "image"]
ManagerName = Literal["local", "docker"]
Role = Literal["admin", "read"]


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


class VersionSpec(Struct, frozen=True):
    """How to run a version: what was deployed. Two containers of equal specs are interchangeable.

    Attributes:
        artifact: SHA-256 of the tar, in hex.
        target: a path inside the artifact (``file``, ``binary``), ``module:attribute`` (``import``), or the name of a
            Docker image whose program speaks the container protocol (``image``).
        framework: of the model file or folder; None for a program, code, and a pickle from before there were others.
        output: ``labels``, ``probabilities``, or names of outputs with commas between; None means the model's own.
        data: a path inside the artifact that a class gets as ``model_data``, a program as ``--data``.
        input_type: as declared at deployment; None means what the container says.
        python: the interpreter to run it with, by its path or a version such as ``3.12``; None means Clipper's own.
        requirements: a path inside the artifact of a requirements file, of which an environment is built.
        needs: what the model's file says that it needs: requirements, and ``python==3.12`` of Python itself.
        memory_bytes: the most memory that one replica may have, with all processes that it forks; None means no bound.
        sample: an input, as JSON text, that a container has to answer before it is ready; None means a remembered one.
        cpus: how many processors one replica may use; None means any, with libraries that compute in one thread.
        gpus: which GPUs one replica may use, as ``managers.shares.parse_gpus`` reads it; None means none.
        manager: what starts its containers.
    """

    artifact: str
    loader: Loader
    target: str
    data: str | None = None
    input_type: str | None = None
    python: str | None = None
    start_timeout_s: float = 60.0
    memory_bytes: int | None = None
    cpus: float | None = None
    gpus: str | None = None
    manager: ManagerName = "local"
    sample: str | None = None
    requirements: str | None = None
    needs: tuple[str, ...] = ()
    framework: Framework | None = None
    output: str | None = None


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
