"""What the management API takes and gives, as JSON. The CLI and the Python client read the same types.

Requests refuse unknown fields, so that a misspelt option is an error and not a surprise. Those to deploy a version, and
to create or change an application, are in ``clipper.settings``.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from clipper.management.learned import LearnedModel, Newcomer, Standing
from clipper.settings.application import ApplicationSettings, Configured, Cost, Link, MaxInFlight, MaxPerSecond
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionState
from clipper.types import Role

# A log is bounded at a few MB on disk; this many of its lines still make one modest answer.
MAX_LOG_LINES = 10_000

ReplicaState = Literal["starting", "ready", "backing_off", "crash_loop", "stopping"]
WorkerState = Literal["starting", "ready", "backing_off", "crash_loop", "stopping", "draining"]


class LinkChange(Struct, frozen=True, forbid_unknown_fields=True):
    """``version`` None follows the model's current version. A ``shadow`` is asked and scored, but never answers.

    ``cost`` is that of asking it once, at least 0, in a unit of the user's; ``auto`` is measured, in milliseconds of a
    replica; null is not said.
    """

    version: str | None = None
    shadow: bool = False
    cost: Cost | None = None


class Application(ApplicationSettings, frozen=True):
    """An application as it is.

    Attributes:
        id: names what it learns, in the selection store.
        problem: what its own policy or loss did wrong last, in any worker; None if nothing, or nobody has looked.
        newcomers: versions that are new to it, and get no more than a share of the queries; or none, once stopped.
        test: how it stands with the policy ``best_arm``; None with others, or if nobody has looked.
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
    test: Standing | None = None


class ConfidenceBin(Struct, frozen=True):
    """Answers of about one confidence.

    Attributes:
        answers: how many had feedback; what is old counts for less.
        confidence: their mean.
        right: the share of them that was right; under a loss in between, 1 minus the mean loss.
        calibrated: of a raw confidence, what is answered in its place now.
    """

    answers: float
    confidence: float
    right: float
    calibrated: float | None = None


class Reliability(Struct, frozen=True):
    """How right an application's answers were, by the raw confidence in them and by the one that was answered.

    Attributes:
        model: whose answers they are; None where several models made each.
        basis: what the raw confidence is: the share of the models that agree, or the probability that is answered.
        raw_error, answered_error: the expected calibration errors: a bin's mean difference between confidence and share
            of right answers.
    """

    model: str | None
    basis: Literal["agreement", "probability"]
    raw: tuple[ConfidenceBin, ...]
    answered: tuple[ConfidenceBin, ...]
    raw_error: float
    answered_error: float


class LearnedPolicy(Struct, frozen=True):
    """What an application's policy has learned, in ``context`` or, if that is None, over all.

    ``calibration`` is always over all; it is empty unless the application calibrates.
    ``test`` is how it stands with a policy that is a test, as ``best_arm`` is; else None.

    Attributes:
        mean_cost: of the queries since the workers' start, by what their models cost now; None if no cost is known.
        stages: of these queries, the shares that have gone on to a second model, a third and so on.
    """

    policy: str
    parameters: dict[str, Any]
    loss: str
    context: str | None
    observations: float
    models: tuple[LearnedModel, ...]
    problem: str | None
    calibration: tuple[Reliability, ...] = ()
    test: Standing | None = None
    mean_cost: float | None = None
    stages: tuple[float, ...] = ()


class Replica(Struct, frozen=True):
    """``batch_limit`` is the smallest over the workers, None until one has linked it."""

    id: str
    model: str
    version: str
    state: ReplicaState
    pid: int | None
    restarts: int
    last_error: str | None
    batch_limit: int | None
    log: str


class Version(Struct, frozen=True):
    """A version as it is.

    Attributes:
        current: whether it is the model's current one.
        input_type: None until a container has told.
        progress: what goes on before its containers can start, such as ``installing 12 packages``.
        warning: how the model and what it runs with do not quite fit.
        scaling: within what its load decides ``replicas_wanted``; None if it does not.
        scaling_reason: why it decided so; None if it has not looked yet.
    """

    model: str
    version: str
    state: VersionState
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

    @property
    def ready_replicas(self) -> int:
        return sum(replica.state == "ready" for replica in self.replicas)


class Model(Struct, frozen=True):
    name: str
    current: str | None
    previous: str | None
    versions: tuple[Version, ...]


class Contexts(Struct, frozen=True):
    """How many contexts the store has of an application, and some of them: first those with the latest feedback."""

    count: int
    contexts: tuple[str, ...]


class Rollback(Struct, frozen=True, forbid_unknown_fields=True):
    version: str | None = None


class Scale(Struct, frozen=True, forbid_unknown_fields=True):
    """``replicas`` is a number, or a range within which the version's load decides."""

    replicas: int | ReplicaRange
    version: str | None = None


class Logs(Struct, frozen=True):
    """The last lines of each replica's log, oldest first, by replica name such as ``digits:2#1``."""

    lines: dict[str, tuple[str, ...]]


class NewToken(Struct, frozen=True, forbid_unknown_fields=True):
    """``name`` is whom or what it is for: by it the token is listed and revoked."""

    name: str
    role: Role = "read"


class Token(Struct, frozen=True):
    """What is known of a token; not the token. ``created_at`` is in seconds since 1970."""

    name: str
    role: Role
    created_at: float


class CreatedToken(Token, frozen=True):
    """A new token: ``token`` is shown now and never again, for the server keeps no more than its digest."""

    token: str


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Attributes:
        name: whom or what it is for: by it the key is listed and revoked, and told in metrics.
        applications: those that it is for; empty is all.
        max_in_flight, max_per_second: of its queries, over all applications and workers; null is no bound.
    """

    name: str
    applications: tuple[str, ...] = ()
    max_in_flight: MaxInFlight = None
    max_per_second: MaxPerSecond = None


class Key(Struct, frozen=True):
    """What is known of a key; not the key. ``created_at`` is in seconds since 1970."""

    name: str
    created_at: float
    applications: tuple[str, ...]
    max_in_flight: int | None
    max_per_second: float | None


class CreatedKey(Key, frozen=True):
    """A new key: ``key`` is shown now and never again, for the server keeps no more than its digest."""

    key: str


class WorkerStatus(Struct, frozen=True):
    index: int
    pid: int | None
    state: WorkerState
    restarts: int
    generation: int
    last_error: str | None


class Status(Struct, frozen=True):
    """``certificate_expires_at``: of both ports, in seconds since 1970; None without TLS. ``client_ca_expires_at``: the
    first of those that sign the certificates of the query port's clients; None if they need not show any.
    ``grpc_address``: HOST:PORT; None if nothing listens there."""

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
    certificate_expires_at: float | None = None
    client_ca_expires_at: float | None = None
    grpc_address: str | None = None


class Health(Struct, frozen=True):
    """What a health check that passes answers, and what ``POST /stop`` does."""

    status: Literal["live", "ready", "stopping"]


class Failure(Struct, frozen=True, omit_defaults=True):
    """Every error's body. ``log_tail``, only with ``container_failed``, holds the container's last lines."""

    error: str
    cause: str
    log_tail: tuple[str, ...] = ()


def to_json(value: Struct) -> bytes:
    return msgspec.json.encode(value)
