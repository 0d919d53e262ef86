"""The snapshot that the supervisor pushes to each query worker: everything that the worker needs to answer queries.

A worker never reads the registry. Its first snapshot comes whole, and the next ones as differences: see
``control/difference.py``. A worker that missed a difference is up to date again after the next.
"""

from msgspec import Struct
from msgspec.structs import replace

from clipper.control.address import ControlAddress, parse_address
from clipper.settings.application import Link, Selection
from clipper.settings.pipeline import Step, Wiring
from clipper.settings.version import Batching


class ReplicaAddress(Struct, frozen=True):
    """The address of a replica, and what its callers need.

    Attributes:
        id: names one process, e.g. ``digits:2#1.g7``. A restarted replica has a new id, so a worker never mistakes it
            for its predecessor.
        address: ``unix:PATH`` or ``tcp:HOST:PORT``.
        token: the token that its callers send in HELLO; empty if it needs none.
        certificate: the only certificate that it may show, in PEM; empty if it is not dialled over TLS.
        node: the address of its node, like ``WorkerConfig.node``; empty if there is only one node.
        devices: the ids of the accelerators of its node on which it computes, as far as its manager knows them.
    """

    id: str
    address: str
    token: str = ""
    certificate: str = ""
    node: str = ""
    devices: tuple[str, ...] = ()


class SharedVersion(Struct, frozen=True, kw_only=True):
    """The facts about a version that the registry and the workers share, besides how it runs.

    Attributes:
        predecessor: the version that was current when this one was deployed; None if there was none, or in an old
            record.
        output_type: the text form of the type of its outputs, as it was declared, or that of its first answer, whose
            lengths bind no other; None if it is not known. The type that was learned first stays.
        output_is_declared: whether it was declared, at deployment or by the container.
        output_is_untyped: whether no type describes its first answer, so that it has none, whatever it answers later.
        state_key: its name in the learned state of applications, by its content; given at deployment, or to an old
            record when it is loaded.
        predecessor_state_key: that of its predecessor; empty if there was none.
    """

    predecessor: str | None = None
    output_type: str | None = None
    output_is_declared: bool = False
    output_is_untyped: bool = False
    state_key: str = ""
    predecessor_state_key: str = ""

    @property
    def knows_outputs(self) -> bool:
        """Whether its record has the type of its outputs, or that there is none."""
        return self.output_type is not None or self.output_is_untyped


class VersionSnapshot(SharedVersion, frozen=True):
    """A version of a model.

    Attributes:
        input_type: the text form of a ``records.ValueType``.
        wakes: whether the version is asleep while it has no replica, and gets a replica once it is asked.
        is_starting: no replica is in service, and a replica is starting or about to be restarted: queries wait for it.
    """

    version: str
    input_type: str
    batching: Batching = Batching()
    cache: bool = True
    replicas: tuple[ReplicaAddress, ...] = ()
    wakes: bool = False
    is_starting: bool = False

    @property
    def without_replicas(self) -> "VersionSnapshot":
        """All but replicas, and what was learned of outputs. If this changes, a worker serves it anew."""
        declared = self.output_type if self.output_is_declared else None
        parts = {"output_type": declared, "output_is_untyped": False}
        return replace(self, replicas=(), wakes=False, is_starting=False, **parts)


class ModelSnapshot(Struct, frozen=True):
    name: str
    current: str | None
    versions: tuple[VersionSnapshot, ...]


class RampOutcome(Struct, frozen=True):
    """The feedback on a newcomer: how many of its answers and of other answers had feedback, and their mean losses.

    A mean loss of no answers is None. ``compared``, if the policy chooses by context, is how many of its answers the
    means are about: those to queries to which the context matters. None means all.
    """

    feedback: int = 0
    rest_feedback: int = 0
    mean_loss: float | None = None
    rest_mean_loss: float | None = None
    compared: int | None = None


NO_OUTCOME = RampOutcome()


class Newcomer(Struct, frozen=True):
    """A version that is new to an application: ramped, or stopped because it did harm. See docs/newcomers.md.

    Attributes:
        ramp: a number that no other newcomer of the application has or had.
        before: the version that its link asked before and still asks; None if the newcomer has a link of its own.
        promoted: whether a deployment made it its model's current version.
        stopped: why it is no longer asked; None while it is ramped.
        outcome: the feedback on it when it was stopped.
    """

    ramp: int
    model: str
    version: str
    before: str | None = None
    promoted: bool = False
    stopped: str | None = None
    outcome: RampOutcome = NO_OUTCOME

    @property
    def name(self) -> str:
        """The newcomer's name in policies, metrics and messages."""
        return f"{self.model}:{self.version}"


class SharedApplication(Struct, frozen=True):
    """The facts about an application that the registry and the workers share; settings are as in
    ``ApplicationSettings``.

    Attributes:
        input_type: the text form of a ``records.ValueType``.
        default_output: JSON text; None if it has no default.
        id: the key of its learned state; a new application with an old name has another id.
        newcomers: versions of its links that are ramped, or that were stopped, if no operator has acted on them since.
        watched: versions that were deployed or linked in place of others while the policy does not learn. They answer
            all queries of their links, and are stopped if they fail more than the versions before.
    """

    name: str
    input_type: str
    slo_ms: float
    default_output: str | None = None
    selection: Selection = Selection()
    links: tuple[Link, ...] = ()
    id: str = ""
    max_in_flight: int | None = None
    max_per_second: float | None = None
    newcomers: tuple[Newcomer, ...] = ()
    waking_slo_ms: float | None = None
    show_model: bool = True
    watched: tuple[Newcomer, ...] = ()
    null_is_nan: bool = False
    ignore_unknown_fields: bool = False
    steps: dict[str, Step] = {}
    output: Wiring | None = None
    nan_as_text: bool = False


class ApplicationSnapshot(SharedApplication, frozen=True, kw_only=True):
    """An application. ``needs_key``: whether it answers only clients that send a key for it."""

    needs_key: bool = False


class KeySnapshot(Struct, frozen=True):
    """A key of the query port, as in ``NewKey``. Workers know only its SHA-256, in hex."""

    name: str
    digest: str
    applications: tuple[str, ...] = ()
    max_in_flight: int | None = None
    max_per_second: float | None = None
    expires_at: float | None = None


class Peer(Struct, frozen=True):
    """A query worker.

    Attributes:
        instance: the upper part of the ids of its queries.
        control: the address of its control channel, as ``ControlAddress.wire``.
    """

    instance: int
    control: str

    @property
    def address(self) -> ControlAddress:
        """The address of its control channel. Raises InvalidArgument if this version does not know its form."""
        return parse_address(self.control)


class Snapshot(Struct, frozen=True):
    """
    Attributes:
        generation: grows by one with each change, so that an old snapshot never replaces a newer one.
        needs_key: whether every application answers only clients that send a key.
        workers: the target number of workers; each lets in an equal share of a limit over all.
    """

    generation: int = 0
    applications: tuple[ApplicationSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()
    peers: tuple[Peer, ...] = ()
    keys: tuple[KeySnapshot, ...] = ()
    needs_key: bool = False
    workers: int = 1
