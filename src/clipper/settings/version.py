"""The settings of a version of a model: how it is run, and how queries are batched for it."""

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Struct

from clipper.model.protocol.messages import MAX_ROWS
from clipper.settings.fields import Setting
from clipper.settings.replicas import ReplicaRange, read_replicas
from clipper.settings.texts import INPUT_TYPE_HELP, read_resources, read_sample, size
from clipper.settings.variables import read_secret, read_variable
from clipper.values.types import Framework, Loader

VersionState = Literal["starting", "ready", "failed", "sleeping"]
ManagerName = Literal["local", "docker", "ray"]
# Half precision: IEEE 754's binary16, and the first half of its binary32.
Precision = Literal["fp16", "bf16"]
BatchingPolicy = Literal["goodput", "aimd", "quantile", "aimd_damped", "quantile_refit", "fixed", "none"]

# The largest batch by default.
MAX_BATCH = 1024
# Waiting longer than this for a batch would miss any latency objective that batching serves.
MAX_DELAY_MS = 10_000.0
# A Python with numpy and no model needs about this much address space.
MIN_MEMORY_BYTES = 64 * 1024 * 1024

# A container that computes may take this many times its start_timeout_s to start. A larger factor would keep an
# operator waiting for long if a model computes for ever.
MOST_START_TIMES = 2.0


class Batching(Struct, frozen=True):
    """The rule for batching a version's queries. A ``policy`` of ``none`` puts one query into each batch."""

    policy: Annotated[BatchingPolicy, Setting("The rule that decides how large batches are.", keyword="batching")] = (
        "goodput"
    )
    max_batch: Annotated[
        int, Setting("The largest batch; with fixed, the size of every batch.", least=1, most=MAX_ROWS)
    ] = MAX_BATCH
    # Counted from the arrival of the batch's oldest query.
    delay_ms: Annotated[
        float, Setting("How long a batch may wait to fill.", least=0, most=MAX_DELAY_MS, keyword="batch_delay_ms")
    ] = 0.0


class VersionSpec(Struct, frozen=True):
    """The specification of how to run a version. Two containers of equal specs are interchangeable.

    The registry keeps the spec in the record of its version.

    Attributes:
        artifact: SHA-256 of the tar, in hex.
        target: a path inside the artifact (``file``, ``binary``), ``module:attribute`` (``import``), or the name of a
            Docker image whose program speaks the container protocol (``image``).
        data: a path inside the artifact; a class gets it as ``model_data``, a program as ``--data``.
        input_type: the type that the deployment declares; None means the type that the container states.
        python: None means Clipper's own.
        memory_bytes: the most memory that a replica may have, with all processes that it forks; None means no bound.
        cpus: None means any processor, with libraries that compute in one thread.
        gpus: a text that ``managers.shares.parse_gpus`` reads; None means no GPU.
        gpu_memory_bytes: the memory of its GPU that is counted as taken by each replica, which is not held to it; None
            means that memory is not counted.
        resources: further resources of its node in a cluster, by name, that each replica takes; at least 0.0001 each.
        placement: a text that ``managers.ray.placement.parse_nodes`` reads; None means spread over the cluster's nodes.
        sample: an input as JSON text; None means an input that a worker remembers.
        requirements: the path inside the artifact of a requirements file, from which an environment is built.
        needs: the requirements that the model's file states; ``python==3.12`` is a requirement on Python itself.
        framework: the framework of the model file or folder; None for a program, for code, and in old records of
            pickles.
        source: the address that its model was fetched from, with the digest of what came; None if it was uploaded from
            the machine of whoever deployed it.
        env: environment variables of its containers, by name. Nobody is shown their values.
        secrets: texts that ``variables.secret_of`` reads: variables that get their values from secrets of the server's
            machine when a container starts. No record has these values.
    """

    artifact: str
    loader: Loader
    target: str
    data: str | None = None
    input_type: Annotated[str | None, Setting(INPUT_TYPE_HELP)] = None
    python: Annotated[
        str | None,
        Setting("The path of an interpreter, or a Python version, e.g. 3.12, to build with."),
    ] = None
    start_timeout_s: Annotated[
        float,
        Setting(
            "Seconds that the model may take to load; twice as many while it computes.",
            least=0.1,
            most=3600,
            option="start-timeout",
        ),
    ] = 60.0
    memory_bytes: Annotated[
        int | None,
        size("Bound of each replica's memory, e.g. 2g.", least=MIN_MEMORY_BYTES, most=1 << 60, option="memory"),
    ] = None
    cpus: Annotated[
        float | None, Setting("How many processors each replica may use.", least=0.01, most=1024, default="any")
    ] = None
    gpus: Annotated[
        str | None,
        Setting(
            "Experimental: GPUs that each replica may use: how many, a part such as 0.5, all, or ids such as 0,1.",
            metavar="GPUS",
        ),
    ] = None
    gpu_memory_bytes: Annotated[
        int | None,
        size(
            "Experimental: memory of its GPU that each replica takes, e.g. 4g.",
            least=MIN_MEMORY_BYTES,
            most=1 << 44,
            option="gpu-memory",
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        Setting("Experimental: the numbers that a PyTorch network computes with.", default="the model's own"),
    ] = None
    resources: Annotated[
        dict[str, float],
        Setting(
            "Custom resources of its node in a cluster that each replica takes, e.g. ssd=1,tpu=2.",
            metavar="NAME=AMOUNT[,...]",
            default="none",
            read=read_resources,
        ),
    ] = {}
    placement: Annotated[
        str | None,
        Setting(
            "Which nodes of a cluster replicas are placed on: spread, pack, node=ADDRESS, LABEL=VALUE, or several.",
            metavar="spread|pack|node=ADDRESS|LABEL=VALUE[,...]",
            default="spread",
        ),
    ] = None
    manager: ManagerName = "local"
    sample: str | None = None
    requirements: str | None = None
    needs: tuple[str, ...] = ()
    framework: Framework | None = None
    output: Annotated[
        str | None,
        Setting(
            "The model's answer: label, probabilities, class_probabilities, or outputs by name.",
            metavar="NAME[,NAME...]",
            default="the model's own",
        ),
    ] = None
    description: Annotated[str | None, Setting("A text for people, which clipper model show prints.")] = None
    output_type: Annotated[
        str | None,
        Setting(
            "Type of one output, e.g. float32[10], or of several by name, e.g. 'label: string, scores: float32[10]': "
            "outputs are converted to it, or fail.",
            default="what the model says, or its first answer",
        ),
    ] = None
    source: str | None = None
    env: Annotated[
        dict[str, str],
        Setting(
            "An environment variable of the model's containers. May be repeated.",
            metavar="NAME=VALUE",
            default="none",
            read=read_variable,
            several=True,
        ),
    ] = {}
    secrets: Annotated[
        tuple[str, ...],
        Setting(
            "A secret of the server's machine, which the model's containers get as the variable NAME, or VARIABLE. "
            "May be repeated.",
            metavar="[VARIABLE=]NAME",
            option="secret",
            default="none",
            read=read_secret,
        ),
    ] = ()


class Deployment(VersionSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version to deploy: how to run it, with how many replicas, and whether it becomes current."""

    version: Annotated[str | None, Setting("The version's name.", default="the next number")] = None
    replicas: Annotated[
        int | ReplicaRange,
        Setting(
            "How many processes run it; a range, e.g. 1..4, lets the load decide.",
            metavar="N|MIN..MAX",
            read=read_replicas,
        ),
    ] = 1
    batching: Batching = Batching()
    cache: Annotated[
        bool, Setting("Ask the model every time: its output is not a function of its input.", option="no-cache")
    ] = True
    make_current: Annotated[bool, Setting("Keep sending queries to the current version.", option="keep-current")] = True
    # Any JSON, which the spec keeps as text; None means that there is none.
    sample: Annotated[
        Any,
        Setting(
            "An input, as JSON or @FILE, that the model must answer before it is ready. A CSV, JSON lines or Parquet "
            "file may have several rows. It also shows types of columns that the model does not say.",
            metavar="JSON",
            read=read_sample,
        ),
    ] = None
    # None lets the server decide. A spec contains the decision.
    manager: Annotated[
        ManagerName | None,
        Setting(
            "With docker, each replica runs in a container of an image built for it; with ray, on a node of a cluster.",
            default="the server's --manager",
        ),
    ] = None  # type: ignore[assignment]


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
    output_type: str | None
    python: str | None
    manager: ManagerName | None
    output: str | None
    memory_bytes: int | None
    cpus: float | None
    gpus: str | None
    gpu_memory_bytes: int | None
    precision: Precision | None
    resources: dict[str, float]
    placement: str | None
    sample: Any
    start_timeout_s: float
    description: str | None
    env: dict[str, str]
    secrets: tuple[str, ...]
