"""What a version of a model is: how it is run, and how queries come to it."""

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Struct

from clipper.containers.protocol.messages import MAX_ROWS
from clipper.settings.fields import Setting
from clipper.settings.replicas import ReplicaRange, read_replicas
from clipper.settings.texts import read_json_or_file, read_size
from clipper.types import Framework, Loader

VersionState = Literal["starting", "ready", "failed", "sleeping"]
ManagerName = Literal["local", "docker"]
BatchingPolicy = Literal["goodput", "aimd", "quantile", "fixed", "none"]

# A batch that waits longer than this for others would miss any objective that batching is for.
MAX_DELAY_MS = 10_000.0
# An empty Python with numpy needs about this much address space.
MIN_MEMORY_BYTES = 64 * 1024 * 1024


class Batching(Struct, frozen=True):
    """How a version's queries are batched. A ``policy`` of ``none`` is one query a batch."""

    policy: Annotated[BatchingPolicy, Setting("Who decides how large batches are.", keyword="batching")] = "goodput"
    max_batch: Annotated[int, Setting("The largest batch; under fixed, the size.", least=1, most=MAX_ROWS)] = 1024
    # From the arrival of the batch's oldest query.
    delay_ms: Annotated[
        float, Setting("How long a batch may wait to fill.", least=0, most=MAX_DELAY_MS, keyword="batch_delay_ms")
    ] = 0.0


class VersionSpec(Struct, frozen=True):
    """How to run a version: what was deployed. Two containers of equal specs are interchangeable.

    The registry keeps one in the record of its version.

    Attributes:
        artifact: SHA-256 of the tar, in hex.
        target: a path inside the artifact (``file``, ``binary``), ``module:attribute`` (``import``), or the name of a
            Docker image whose program speaks the container protocol (``image``).
        data: a path inside the artifact that a class gets as ``model_data``, a program as ``--data``.
        input_type: as declared at deployment; None means what the container says.
        python: None means Clipper's own.
        memory_bytes: the most memory that one replica may have, with all processes that it forks; None means no bound.
        cpus: None means any, with libraries that compute in one thread.
        gpus: as ``managers.shares.parse_gpus`` reads it; None means none.
        sample: as JSON text; None means a remembered one.
        requirements: a path inside the artifact of a requirements file, of which an environment is built.
        needs: what the model's file says that it needs: requirements, and ``python==3.12`` of Python itself.
        framework: of the model file or folder; None for a program, code, and a pickle from before there were others.
        output: None means the model's own.
    """

    artifact: str
    loader: Loader
    target: str
    data: str | None = None
    input_type: Annotated[
        str | None, Setting("What one input is, e.g. float64[784] or string, if the model does not say.")
    ] = None
    python: Annotated[
        str | None,
        Setting("An interpreter's path, to run the model with as it is; or a version, e.g. 3.12, to build with."),
    ] = None
    start_timeout_s: Annotated[
        float, Setting("Seconds that it may take to load.", least=0.1, most=3600, option="start-timeout")
    ] = 60.0
    memory_bytes: Annotated[
        int | None,
        Setting(
            "Bound of each replica's memory, e.g. 2g.",
            least=MIN_MEMORY_BYTES,
            most=1 << 60,
            option="memory",
            metavar="SIZE",
            read=read_size,
        ),
    ] = None
    cpus: Annotated[
        float | None, Setting("How many processors each replica may use.", least=0.01, most=1024, default="any")
    ] = None
    gpus: Annotated[
        str | None,
        Setting("GPUs that each replica may use: how many, all, or ids such as 0,1.", metavar="GPUS"),
    ] = None
    manager: Annotated[ManagerName, Setting("docker: each replica runs in a container of an image built for it.")] = (
        "local"
    )
    sample: str | None = None
    requirements: str | None = None
    needs: tuple[str, ...] = ()
    framework: Framework | None = None
    output: Annotated[
        str | None,
        Setting(
            "What is answered: labels, probabilities, or outputs by name.",
            metavar="labels|probabilities|NAME[,NAME...]",
            default="the model's own",
        ),
    ] = None
    description: Annotated[str | None, Setting("What people are told of the version: clipper model show.")] = None


class Deployment(VersionSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version to deploy: how to run it, and what is to become of it."""

    version: Annotated[str | None, Setting("The version's name.", default="the next number")] = None
    replicas: Annotated[
        int | ReplicaRange,
        Setting(
            "How many processes run it, or e.g. 1..4: as its load needs.", metavar="N|MIN..MAX", read=read_replicas
        ),
    ] = 1
    batching: Batching = Batching()
    cache: Annotated[bool, Setting("The model is no function: ask it every time.", option="no-cache")] = True
    make_current: Annotated[bool, Setting("Leave queries with the current version.", option="keep-current")] = True
    # Any JSON, where the spec has its text; None means that there is none.
    sample: Annotated[
        Any,
        Setting(
            "An input, as JSON or @FILE, that it has to answer before it is ready.",
            metavar="JSON",
            read=read_json_or_file,
        ),
    ] = None


class DeploymentOptions(TypedDict, total=False):
    """The settings of ``Deployment``, as keywords of ``Clipper.deploy``."""

    version: str | None
    replicas: int | ReplicaRange
    batching: BatchingPolicy
    max_batch: int
    batch_delay_ms: float
    cache: bool
    make_current: bool
    input_type: str | None
    python: str | None
    manager: ManagerName
    output: str | None
    memory_bytes: int | None
    cpus: float | None
    gpus: str | None
    sample: Any
    start_timeout_s: float
    description: str | None
