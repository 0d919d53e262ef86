"""What the supervisor pushes to each query worker: everything that it needs to answer queries.

A worker never reads the registry. It gets a whole snapshot each time, never a difference, so that
a worker which missed one is up to date again after the next.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

# Queries that a worker keeps for feedback, unless told otherwise: 400 a second for the default 600 s, some 100 MB.
FEEDBACK_QUERIES = 250_000

Wait = Literal["all", "decided", "expected"]
ConfidenceFrom = Literal["agreement", "probabilities"]
Features = int | Literal["input"] | None
BatchingPolicy = Literal["goodput", "aimd", "quantile", "fixed", "none"]


class Batching(Struct, frozen=True):
    """How a version's queries are batched.

    Attributes:
        policy: who decides how large a batch is; ``none`` is one query a batch.
        max_batch: the limit under ``fixed``, and an upper bound under all others.
        delay_ms: how long a batch that is not full may wait for more, from its oldest query's arrival.
    """

    policy: BatchingPolicy = "goodput"
    max_batch: int = 1024
    delay_ms: float = 0.0


class ReplicaAddress(Struct, frozen=True):
    """Where a replica listens. ``address`` is ``unix:PATH`` or ``tcp:HOST:PORT``.

    ``id`` names one process, e.g. ``digits:2#1.g7``: a restarted replica has a new id, so that a worker
    never mistakes it for the one before.
    """

    id: str
    address: str
    token: str = ""


class VersionSnapshot(Struct, frozen=True):
    """One version of a model.

    Attributes:
        input_type: the text form of ``types.InputType``.
        predecessor: the version that was current when this one was deployed; None if none was.
    """

    version: str
    input_type: str
    batching: Batching = Batching()
    cache: bool = True
    replicas: tuple[ReplicaAddress, ...] = ()
    predecessor: str | None = None


class ModelSnapshot(Struct, frozen=True):
    name: str
    current: str | None
    versions: tuple[VersionSnapshot, ...]


class Link(Struct, frozen=True):
    """A model that an application may ask: its current version, or the pinned one.

    A ``shadow`` model is asked each query and scored from feedback, but never answers. ``cost`` is that of asking it
    once, in a unit of the user's; None if nobody has said.
    """

    model: str
    version: str | None = None
    shadow: bool = False
    cost: float | None = None


def link_names(links: Sequence[Link]) -> tuple[str, ...]:
    """What policies, parameters and metrics call each: by its model, or ``MODEL:VERSION`` if that version is one of
    several that are linked of the model."""
    links_of = Counter(link.model for link in links)
    return tuple(
        link.model if link.version is None or links_of[link.model] == 1 else f"{link.model}:{link.version}"
        for link in links
    )


class Newcomer(Struct, frozen=True):
    """A version that is new to an application: ramped, or stopped since it did harm. See docs/policies.md.

    Attributes:
        ramp: a number that tells it from the application's other newcomers, of all times.
        before: the version that its link asked before, which goes on to be asked; None if it has a link of its own.
        promoted: whether it became its model's current version, by a deployment.
        stopped: why it is asked no more; None while it is ramped.
    """

    ramp: int
    model: str
    version: str
    before: str | None = None
    promoted: bool = False
    stopped: str | None = None

    @property
    def name(self) -> str:
        """What policies, metrics and messages call it while it is one."""
        return f"{self.model}:{self.version}"


class Selection(Struct, frozen=True):
    """How an application selects among its models and learns from feedback. See docs/policies.md.

    Attributes:
        policy: a policy's name, or ``module:Class``.
        loss: a loss's name, or ``module:function``.
        code: a folder with the modules that ``policy`` and ``loss`` name, if they are the user's own.
        half_life: after how many observations one counts half; None is never.
        prior_weight: for how many observations the application's own state counts in a new context's.
        inherit: how much of what was learned of a version counts for the one that is deployed after it, from 0 to 1.
        ramp: the share of the queries that newcomers get at most, together; None is no ramp.
        max_loss_increase: a newcomer whose answers lose by so much more than the others is stopped; None is never.
        wait: for which of several models an answer waits, until its deadline: ``all``; those that are ``expected`` in
            time, by how they were lately; or, until it is ``decided``, for those that may change it.
        confidence_threshold: an answer with less confidence is replaced by the default; None is no threshold.
        confidence_from: what an answer's confidence is: how many of the models agree; or the ``probabilities`` that
            the answer states, where it does.
        calibrate: whether it becomes how often answers of such a confidence are right, by feedback.
        feedback_ttl_s: for how long feedback on a query may come.
        log_decisions: the share of its queries that is written to the decision log.
        features: how many numbers each query brings for its policy; ``input`` takes them from its input; None is none.
        cost_weight: how much loss a cost of 1 is worth to policies that learn.
    """

    policy: str = "single"
    parameters: dict[str, Any] = {}
    loss: str = "zero_one"
    loss_parameters: dict[str, Any] = {}
    code: str | None = None
    half_life: int | None = 1000
    prior_weight: float = 10.0
    inherit: float = 0.02
    ramp: float | None = 0.05
    max_loss_increase: float | None = 0.05
    wait: Wait = "expected"
    confidence_threshold: float | None = None
    confidence_from: ConfidenceFrom = "agreement"
    calibrate: bool = False
    feedback_ttl_s: float = 600.0
    log_decisions: float = 0.0
    features: Features = None
    cost_weight: float = 0.0


class ApplicationSnapshot(Struct, frozen=True):
    """An application. ``default_output`` is JSON text, or None if it has no default.

    ``newcomers`` are those among its links' versions. ``id`` names what it has learned: a new application of an old
    name has another. ``needs_key``: it answers who shows a key that is for it. ``max_in_flight`` and ``max_per_second``
    bound its queries over all workers; None is no bound.
    """

    name: str
    input_type: str
    slo_ms: float
    default_output: str | None = None
    selection: Selection = Selection()
    links: tuple[Link, ...] = ()
    id: str = ""
    needs_key: bool = False
    max_in_flight: int | None = None
    max_per_second: float | None = None
    newcomers: tuple[Newcomer, ...] = ()


class KeySnapshot(Struct, frozen=True):
    """A key of the query port's, of which no worker knows more than its SHA-256, in hex.

    Attributes:
        applications: those that it is for; empty is all.
        max_in_flight, max_per_second: of its queries, over all applications and workers; None is no bound.
    """

    name: str
    digest: str
    applications: tuple[str, ...] = ()
    max_in_flight: int | None = None
    max_per_second: float | None = None


class Peer(Struct, frozen=True):
    """A query worker: ``instance`` is the upper part of the ids of its queries, ``control`` its control socket."""

    instance: int
    control: str


class Snapshot(Struct, frozen=True):
    """
    Attributes:
        generation: grows by one with each change, so that an old one is never applied over a new.
        needs_key: every application answers only who shows a key.
        workers: how many there are to be; each lets in an equal share of what is bounded over all.
    """

    generation: int = 0
    applications: tuple[ApplicationSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()
    peers: tuple[Peer, ...] = ()
    keys: tuple[KeySnapshot, ...] = ()
    needs_key: bool = False
    workers: int = 1
