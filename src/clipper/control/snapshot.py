"""What the supervisor pushes to each query worker: everything that it needs to answer queries.

A worker never reads the registry. It gets a whole snapshot each time, never a difference, so that
a worker which missed one is up to date again after the next.
"""

from msgspec import Struct

from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching


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
