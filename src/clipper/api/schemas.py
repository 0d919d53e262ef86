"""The requests and answers of the management API, as JSON. The CLI and the Python client use the same types.

Requests refuse unknown fields, so that a misspelt option is an error and not a surprise. The requests to deploy a
version, and to create or change an application, are in ``clipper.settings``.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from clipper.api.learned import Newcomer, Watched
from clipper.api.recent import LastMinute
from clipper.control.descriptions import EndedRamp, ModelDescription, Reliability, Standing
from clipper.settings.application import ApplicationSettings, Configured, Cost, Link, MaxInFlight, MaxPerSecond
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, ManagerName, VersionState
from clipper.values.types import Role

# A log has at most a few MB on disk; an answer with this many of its lines is still of modest size.
MAX_LOG_LINES = 10_000
# The weights of the largest open models fit into this; the bound keeps a stray upload from filling the disk.
MAX_ARTIFACT_BYTES = 16 * 1024**3
# Files, folders and links of an artifact. A whole Python with a framework in it has some 30,000 files.
MAX_MEMBERS = 100_000
# An operator recognises a key by this many hex digits of its digest: too few to find a weak key with them.
FINGERPRINT_LENGTH = 8

# A version that is ready, but has no replica because nobody asks it, is shown as asleep.
ShownState = VersionState | Literal["asleep", "unloaded"]
ReplicaState = Literal["starting", "ready", "backing_off", "crash_loop", "stopping"]
WorkerState = Literal["starting", "ready", "lost", "backing_off", "crash_loop", "stopping", "draining"]


class LinkChange(Struct, frozen=True, forbid_unknown_fields=True):
    """A link to make or to change.

    Attributes:
        version: null follows the model's current version.
        shadow: whether the model is asked and scored, but never answers.
        cost: the cost of asking it once, at least 0, in a unit of the user's choice; ``auto`` is measured, in
            milliseconds of a replica; null means that it is not given.
    """

    version: str | None = None
    shadow: bool = False
    cost: Cost | None = None


class Application(ApplicationSettings, frozen=True):
    """The present state of an application.

    Attributes:
        id: the key of its learned state in the selection store.
        problem: the last problem of its own policy or loss in any worker; None if there is none, or if no worker was
            asked.
        watched: new versions that answer all queries of their links, unless they fail more than the versions before.
        newcomers: versions that are new to it and get a share of the queries, or, once stopped, no queries.
        ended_ramps: for each of its models the last version that was let through, while it answers.
        test: the state of the policy ``best_arm``; None with other policies, or if no worker was asked.
        last_minute: the outcomes of its queries; None in the answer to a change.
    """

    name: str
    input_type: str
    links: tuple[Link, ...]
    policy: Configured
    loss: Configured
    half_life: int | None
    id: str = ""
    problem: str | None = None
    newcomers: tuple[Newcomer, ...] = ()
    watched: tuple[Watched, ...] = ()
    ended_ramps: tuple[EndedRamp, ...] = ()
    test: Standing | None = None
    last_minute: LastMinute | None = None


class LearnedPolicy(Struct, frozen=True):
    """The state that an application's policy has learned, in ``context`` or, if that is None, over all contexts.

    ``calibration`` is always over all contexts; it is empty unless the application calibrates.
    ``test`` is the state of a policy that is a test, such as ``best_arm``; None with other policies.

    Attributes:
        mean_cost: the mean cost of queries since the workers' start, at today's costs; None if no cost is known.
        stages: the shares of these queries that went on to a second model, a third and so on.
        prices: what a budget and full models do to choices at the moment in a worker, a sentence for each.
    """

    policy: str
    parameters: dict[str, Any]
    loss: str
    context: str | None
    observations: float
    models: tuple[ModelDescription, ...]
    problem: str | None
    calibration: tuple[Reliability, ...] = ()
    test: Standing | None = None
    mean_cost: float | None = None
    stages: tuple[float, ...] = ()
    prices: tuple[str, ...] = ()


class Replica(Struct, frozen=True):
    """A replica of a version.

    ``batch_limit`` is the smallest limit of the workers; None until a worker has linked the replica. ``node`` is the
    node of a cluster that it runs on; None on the server's own machine.
    """

    id: str
    model: str
    version: str
    state: ReplicaState
    pid: int | None
    restarts: int
    last_error: str | None
    batch_limit: int | None
    log: str
    node: str | None = None


class Version(Struct, frozen=True):
    """The present state of a version.

    Attributes:
        state: the state of its deployment. ``asleep`` if it has no replica because nobody asks it, and gets a replica
            with the next query. A version that was ready once stays ``ready`` when its replicas crash: see
            ``condition``.
        condition: its present condition, for people: ``state``; or, if it is ready or starting and has no ready
            replica, the state of its replicas, such as ``crash_loop``; ``degraded`` if some replicas are ready and
            another crashes; ``failing`` if it fails on its inputs of the last minute. Empty from a server that does not
            know the field.
        current: whether it is the model's current version.
        input_type: None until a container has stated it.
        output_type: the type of its outputs, as it was declared, or that of its first answer; None if it is not known.
        output_is_declared: whether it was declared. Outputs are then converted to it, or fail. If not, its lengths are
            open: those of the first answer bind no other.
        output_is_untyped: whether no type describes its first answer. Clients that need a type get the text of the JSON
            of all its outputs.
        progress: the step before its containers can start, such as ``installing 12 packages``.
        warning: a mismatch between the model and the packages that it runs with, or that it is not known to answer any
            input.
        scaling: the range in which the load decides ``replicas_wanted``; None if it is a fixed number.
        scaling_reason: why the scaler chose the number; None if it has not looked yet.
        variables: the names of its own environment variables whose values came with its deployment.
        secrets: the names of those whose values are secrets of the server's machine: ``VARIABLE=NAME``, or ``NAME`` if
            both are the same.
        source: the address that its model was fetched from, with the digest of what came; None if it came as a file.
        stopped: why a guardrail stopped it, or that its replicas did not stay up: a rollback returns to it only if it
            names it. None if neither is so, or if a later version was deployed over it since.
    """

    model: str
    version: str
    state: ShownState
    current: bool
    input_type: str | None
    runtime: str
    batching: Batching
    cache: bool
    replicas_wanted: int
    replicas: tuple[Replica, ...]
    created_at: float
    last_error: str | None = None
    log_tail: tuple[str, ...] = ()
    progress: str | None = None
    warning: str | None = None
    scaling: ReplicaRange | None = None
    scaling_reason: str | None = None
    description: str | None = None
    condition: str = ""
    stopped: str | None = None
    output_type: str | None = None
    output_is_declared: bool = False
    variables: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    source: str | None = None
    output_is_untyped: bool = False

    @property
    def ready_replicas(self) -> int:
        return sum(replica.state == "ready" for replica in self.replicas)


class Model(Struct, frozen=True):
    """A model. ``previous`` is the version that a rollback returns to; None if there is none."""

    name: str
    current: str | None
    previous: str | None
    versions: tuple[Version, ...]


class Contexts(Struct, frozen=True):
    """The number of an application's contexts in the store, and the contexts with the latest feedback, latest first."""

    count: int
    contexts: tuple[str, ...]


class Rollback(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rollback to ``version``; None means the model's previous version.

    A version that was ``stopped`` becomes current only with ``allow_stopped``.
    """

    version: str | None = None
    allow_stopped: bool = False


class Scale(Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a version's replicas to a number, or to a range within which the version's load decides.

    With 0 the version is unloaded: it answers no queries until it is scaled again.
    """

    replicas: int | ReplicaRange
    version: str | None = None


class Load(Struct, frozen=True):
    """The body of a Triton client that loads or unloads a model. ``parameters`` with files or a configuration are
    refused; others are ignored."""

    parameters: dict[str, Any] = {}


class Logs(Struct, frozen=True):
    """Lines of logs, oldest first, by the log's name: a replica's, such as ``digits:2#1``, or a log of the server.

    ``places`` says where each log ends. A call that gives them back gets the lines that were written since.
    """

    lines: dict[str, tuple[str, ...]]
    places: dict[str, str] = {}


class NewToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token to make. ``name`` says who or what the token is for; it is listed and revoked by this name.

    ``expires_at`` is the time from which it is refused, in seconds since 1970; null means never.
    """

    name: str
    role: Role = "read"
    expires_at: float | None = None


class Token(Struct, frozen=True):
    """A token's record, without the token itself. ``created_at`` and ``expires_at`` are in seconds since 1970."""

    name: str
    role: Role
    created_at: float
    expires_at: float | None = None


class CreatedToken(Token, frozen=True, kw_only=True):
    """A new token. Only this answer contains ``token``, because the server keeps only its digest."""

    token: str


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """A key to make.

    Attributes:
        name: who or what the key is for; it is listed, revoked and shown in metrics by this name.
        applications: the applications that the key is for; empty means all.
        max_in_flight, max_per_second: limits on its queries, over all applications and workers; null means no limit.
        key: the key itself, 32 to 512 letters, digits or ._~+/=-; null means that the server makes one.
        replace: whether it takes the place of the key of that name, if there is such a key.
        expires_at: the time from which it is refused, in seconds since 1970; null means never. If it is absent, a key
            that takes its own place expires when it would have.
    """

    name: str
    applications: tuple[str, ...] = ()
    max_in_flight: MaxInFlight = None
    max_per_second: MaxPerSecond = None
    key: str | None = None
    replace: bool = False
    expires_at: float | UnsetType | None = UNSET


class Key(Struct, frozen=True):
    """A key's record, without the key itself. ``created_at`` and ``expires_at`` are in seconds since 1970.

    ``fingerprint`` is the beginning of the SHA-256 of the key, in hex, by which an owner of the key recognises it. It
    is shown to the role ``admin`` alone, and null to others.
    """

    name: str
    created_at: float
    applications: tuple[str, ...]
    max_in_flight: int | None
    max_per_second: float | None
    fingerprint: str | None = None
    expires_at: float | None = None


class CreatedKey(Key, frozen=True, kw_only=True):
    """A new key. Only this answer contains ``key``, because the server keeps only its digest."""

    key: str


class WorkerStatus(Struct, frozen=True):
    """A query worker. ``node``: the address of its node in a cluster; empty if it runs on the server's machine."""

    index: int
    pid: int | None
    state: WorkerState
    restarts: int
    generation: int
    last_error: str | None
    node: str = ""


class LeaseStatus(Struct, frozen=True):
    """The leadership among supervisors that share a registry.

    Attributes:
        role: the role of this server.
        registry: the registry's address, without a password.
        epoch, leader, since: the lease in force: its number, the leader's management port, and when it was granted, in
            seconds since 1970. None on a standby that cannot ask the registry.
        renewed_s_ago: on the leader, the time since the registry confirmed its lease.
        standby: on the leader, the management port of a server that stands by; None if none does.
        renewals_failed: on the leader, the renewals of this lease that the registry did not confirm.
    """

    role: Literal["leader", "standby"]
    registry: str
    epoch: int | None = None
    leader: str | None = None
    since: float | None = None
    renewed_s_ago: float | None = None
    standby: str | None = None
    renewals_failed: int = 0


class OptionStatus(Struct, frozen=True):
    """An option of the server: its value as text, None if it may hold a secret, and its source.

    ``source`` is ``command line``, ``environment``, ``file`` (of --config), ``kept`` (of an earlier start) or
    ``default``.
    """

    value: str | None
    source: str


class DiskStatus(Struct, frozen=True):
    """The disk of a folder that the server writes to. ``free_bytes``: how much the server may still write there."""

    path: str
    free_bytes: int
    size_bytes: int


class GpuStatus(Struct, frozen=True):
    """A GPU of the server's machine, or a part of one (MIG), whose utilization is None. None is not known.

    ``utilization``: the share of the driver's last sample in which it computed.
    """

    id: str
    memory_bytes: int | None
    memory_used_bytes: int | None
    utilization: float | None


class Status(Struct, frozen=True):
    """The server's status.

    Attributes:
        certificate_expires_at: in seconds since 1970; None without TLS.
        client_ca_expires_at: the time at which the first certificate of ``--tls-client-ca`` expires; None without it.
        grpc_address: HOST:PORT; None if nothing listens there.
        stopping: whether it was told to stop.
        applications_ready: how many applications can answer; None from an older server.
        nodes: the numbers of replicas on each node of a cluster, by their state.
        lease: None if the registry is in the server's home.
        manager: the manager of deployments that name none.
        options: the server's options, by name.
        gpus: those of which the driver tells something; empty if it no longer answers.
    """

    version: str
    pid: int
    home: str
    query_url: str
    management_url: str
    uptime_s: float
    ready: bool
    problems: tuple[str, ...]
    workers: tuple[WorkerStatus, ...]
    applications: int
    models: int
    replicas: dict[str, int]
    applications_ready: int | None = None
    certificate_expires_at: float | None = None
    client_ca_expires_at: float | None = None
    credential_expires_at: float | None = None
    grpc_address: str | None = None
    stopping: bool = False
    nodes: dict[str, dict[str, int]] = {}
    lease: LeaseStatus | None = None
    manager: ManagerName = "local"
    options: dict[str, OptionStatus] = {}
    disks: tuple[DiskStatus, ...] = ()
    gpus: tuple[GpuStatus, ...] = ()


class Health(Struct, frozen=True):
    """The answer of a passing health check."""

    status: Literal["live", "ready"]


class Stopping(Struct, frozen=True):
    """The answer of ``POST /stop``. ``drain_delay_s``: how long queries are still answered before workers drain."""

    status: Literal["stopping"] = "stopping"
    drain_delay_s: float = 0.0


class Failure(Struct, frozen=True, omit_defaults=True):
    """The body of every error. ``log_tail`` has the container's last lines, only with ``container_failed``."""

    error: str
    cause: str
    log_tail: tuple[str, ...] = ()
