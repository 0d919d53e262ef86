"""What the management API takes and gives, as JSON. The CLI and the Python client read the same types.

Requests refuse unknown fields, so that a misspelt option is an error and not a surprise.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from clipper.control.snapshot import Batching, ConfidenceFrom, Features, Link, Selection, Wait
from clipper.management.learned import LearnedModel, Newcomer, Standing
from clipper.scaling import ReplicaRange
from clipper.types import Framework

VersionState = Literal["starting", "ready", "failed", "sleeping"]
ReplicaState = Literal["starting", "ready", "backing_off", "crash_loop", "stopping"]
WorkerState = Literal["starting", "ready", "backing_off", "crash_loop", "stopping", "draining"]
Loader = Literal["file", "import", "binary", "image"]
ManagerName = Literal["local", "docker"]
# ``read`` may look at everything but tokens, ``admin`` may do all.
Role = Literal["admin", "read"]


class Configured(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy or a loss: its name, and the parameters that are not to have their defaults.

    The user's own is ``module:attribute``.
    """

    name: str
    # The framework's schema of it takes no dict as a default.
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


_DEFAULTS = Selection()


class NewApplication(Struct, frozen=True, forbid_unknown_fields=True):
    """``input_type`` None means the first linked model's. ``default_output`` may be any JSON; absent means none.

    For how models are selected and feedback is learned from, see ``snapshot.Selection``. ``code`` is the SHA-256 of the
    artifact with the modules of a policy or loss of the user's own. A name alone is a policy with its defaults. A
    ``half_life`` that is absent is the policy's own. ``require_key``: it answers only who shows a key.
    ``max_in_flight`` and ``max_per_second`` bound its queries, over all workers; null is no bound.
    """

    name: str
    slo_ms: float
    input_type: str | None = None
    default_output: Any | UnsetType = UNSET
    policy: str | Configured = _DEFAULTS.policy
    links: tuple[Link, ...] = ()
    loss: str | Configured = _DEFAULTS.loss
    half_life: int | UnsetType | None = UNSET
    prior_weight: float = _DEFAULTS.prior_weight
    inherit: float = _DEFAULTS.inherit
    ramp: float | None = _DEFAULTS.ramp
    max_loss_increase: float | None = _DEFAULTS.max_loss_increase
    wait: Wait = _DEFAULTS.wait
    confidence_threshold: float | None = _DEFAULTS.confidence_threshold
    confidence_from: ConfidenceFrom = _DEFAULTS.confidence_from
    calibrate: bool = _DEFAULTS.calibrate
    feedback_ttl_s: float = _DEFAULTS.feedback_ttl_s
    log_decisions: float = _DEFAULTS.log_decisions
    features: Features = None
    cost_weight: float = _DEFAULTS.cost_weight
    code: str | None = None
    require_key: bool = False
    max_in_flight: int | None = None
    max_per_second: float | None = None


class ApplicationChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay as they are. ``default_output`` null is a default of null, not none.

    A new policy or loss has the parameters that come with it, and none of the old one's.
    """

    slo_ms: float | UnsetType = UNSET
    default_output: Any | UnsetType = UNSET
    policy: str | Configured | UnsetType = UNSET
    loss: str | Configured | UnsetType = UNSET
    half_life: int | UnsetType | None = UNSET
    prior_weight: float | UnsetType = UNSET
    inherit: float | UnsetType = UNSET
    ramp: float | UnsetType | None = UNSET
    max_loss_increase: float | UnsetType | None = UNSET
    wait: Wait | UnsetType = UNSET
    confidence_threshold: float | UnsetType | None = UNSET
    confidence_from: ConfidenceFrom | UnsetType = UNSET
    calibrate: bool | UnsetType = UNSET
    feedback_ttl_s: float | UnsetType = UNSET
    log_decisions: float | UnsetType = UNSET
    features: Features | UnsetType = UNSET
    cost_weight: float | UnsetType = UNSET
    code: str | UnsetType = UNSET
    require_key: bool | UnsetType = UNSET
    max_in_flight: int | UnsetType | None = UNSET
    max_per_second: float | UnsetType | None = UNSET


class LinkChange(Struct, frozen=True, forbid_unknown_fields=True):
    """``version`` None follows the model's current version. A ``shadow`` is asked and scored, but never answers.

    ``cost`` is that of asking it once, at least 0, in a unit of the user's; null is not said.
    """

    version: str | None = None
    shadow: bool = False
    cost: float | None = None


class Application(Struct, frozen=True, omit_defaults=False):
    """An application as it is.

    Attributes:
        id: names what it learns, in the selection store.
        require_key: it answers only who shows a key, also if the server asks for none elsewhere.
        max_in_flight, max_per_second: of its queries, over all workers; None is no bound.
        problem: what its own policy or loss did wrong last, in any worker; None if nothing, or nobody has looked.
        newcomers: versions that are new to it, and get no more than a share of the queries; or none, once stopped.
        test: how it stands with the policy ``best_arm``; None with others, or if nobody has looked.
    """

    name: str
    input_type: str
    slo_ms: float
    links: tuple[Link, ...]
    policy: Configured
    loss: Configured
    half_life: int | None
    prior_weight: float
    inherit: float
    ramp: float | None
    max_loss_increase: float | None
    wait: Wait
    confidence_threshold: float | None
    confidence_from: ConfidenceFrom
    calibrate: bool
    feedback_ttl_s: float
    log_decisions: float
    features: Features = None
    default_output: Any | UnsetType = UNSET
    code: str | None = None
    id: str = ""
    problem: str | None = None
    require_key: bool = False
    max_in_flight: int | None = None
    max_per_second: float | None = None
    newcomers: tuple[Newcomer, ...] = ()
    cost_weight: float = 0.0
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


class Deployment(Struct, frozen=True, forbid_unknown_fields=True):
    """A version to deploy. See ARCHITECTURE.md, "Management API", for each field.

    ``target`` is a path inside the artifact for the loaders ``file`` and ``binary``, a program that speaks the
    container protocol; ``module:attribute`` for ``import``; for ``image`` a Docker image's name, with such a program.
    ``data`` is a path inside the artifact that a class gets as ``model_data``, and a program as ``--data``.
    ``requirements`` is the path inside the artifact of a requirements file, of which an environment is built; ``needs``
    is what the model's own file says that it needs: requirements, and ``python==3.12`` of Python itself.
    ``gpus`` is ``all``, a count, or ids such as ``0,1``.
    ``sample`` is an input that the model has to answer before the version is ready; null means that there is none.
    ``framework`` is what loads a model file or folder; None means a pickle.
    ``output`` is ``labels``, ``probabilities`` or names of outputs with commas between; None means the model's own.
    ``replicas`` is a number, or a range within which the version's load decides.
    """

    artifact: str
    loader: Loader
    target: str
    version: str | None = None
    data: str | None = None
    input_type: str | None = None
    replicas: int | ReplicaRange = 1
    python: str | None = None
    batching: Batching = Batching()
    cache: bool = True
    make_current: bool = True
    start_timeout_s: float = 60.0
    memory_bytes: int | None = None
    manager: ManagerName = "local"
    requirements: str | None = None
    needs: tuple[str, ...] = ()
    cpus: float | None = None
    gpus: str | None = None
    sample: Any = None
    framework: Framework | None = None
    output: str | None = None


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
    max_in_flight: int | None = None
    max_per_second: float | None = None


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
    first of those that sign the certificates of the query port's clients; None if they need not show any."""

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
