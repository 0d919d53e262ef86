"""The messages between the supervisor's side and the driver: a JSON text in each line."""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from clipper.base.processes.process import ProcessRecord

# The methods of actors that may be called: those of both kinds, and those of a replica's or of a worker's only.
Method = Literal[
    "noted",
    "has_artifact",
    "launch",
    "ended",
    "stop",
    "clean_up",
    "progress",
    "read_log",
    "note_ready",
    "terminate",
    "is_up",
    "request_identity",
    "take_identity",
    "read_logs",
]
# Read-only: a server may call these even when it is unsure that it leads.
READS: frozenset[Method] = frozenset(("noted", "ended", "is_up", "progress", "read_log", "read_logs"))
# The kinds of actors.
Kind = Literal["replica", "worker"]


# The namespaces of an owner's actors: a home's, or that of the servers that share a registry.
OWNER_PREFIX = "clipper-"
WORKERS_SUFFIX = "-workers"


class Owner(Struct, frozen=True):
    """The actors of an owner on a cluster. ``models`` are the names of some of its replicas' models."""

    owner: str
    replicas: int
    workers: int
    models: tuple[str, ...] = ()


class Nodes(Struct, frozen=True):
    """The choice of a node by Ray: a strategy, the ``address`` of the only suitable node, if any, and labels."""

    strategy: str = "SPREAD"
    address: str = ""
    labels: dict[str, str] = {}


class Placement(Struct, frozen=True):
    """The resources that a replica takes of its node, and the suitable nodes.

    ``memory_bytes`` is the memory that Ray reserves; 0 reserves none. ``resources`` are Ray's custom resources, by
    name.
    """

    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    resources: dict[str, float] = {}
    nodes: Nodes = Nodes()


class Create(Struct, frozen=True, tag="create"):
    """Asks to create an actor, once Ray has found a node for it. The value is its ``Description``."""

    number: int
    actor: str
    placement: Placement
    kind: Kind = "replica"


class Call(Struct, frozen=True, tag="call"):
    """Asks to call a method of an actor. The value is its result."""

    number: int
    actor: str
    method: Method
    arguments: list[Any] = []


class Ship(Struct, frozen=True, tag="ship"):
    """Asks to send a folder of this machine to an actor's node, as the artifact ``digest``. The value is None."""

    number: int
    actor: str
    digest: str
    folder: str


class Kill(Struct, frozen=True, tag="kill"):
    """Asks to end an actor, also if it has no node yet. The value is None, also if there is no such actor."""

    number: int
    actor: str


class List(Struct, frozen=True, tag="list"):
    """Asks for the names of all actors of the namespace."""

    number: int


class ListNodes(Struct, frozen=True, tag="list nodes"):
    """Asks for a ``ClusterNode`` of each node that Ray knows, also of lost nodes."""

    number: int


Request = Create | Call | Ship | Kill | List | ListNodes


class Answer(Struct, frozen=True, tag="answer"):
    """The value of the request with this ``number``."""

    number: int
    value: Any = None


class Gone(Struct, frozen=True, tag="gone"):
    """The actor has ended, with its process or its node; or there is no actor of that name."""

    number: int
    reason: str


class Failed(Struct, frozen=True, tag="failed"):
    """The request failed; the actor may be well. ``is_unreachable``: the actor did not get it, or could not answer."""

    number: int
    reason: str
    is_unreachable: bool = False


class Refused(Struct, frozen=True, tag="refused"):
    """The driver cannot connect to the cluster, and ends."""

    reason: str


class Connected(Struct, frozen=True, tag="connected"):
    """The driver is connected."""


Reply = Answer | Gone | Failed | Refused | Connected


class Description(Struct, frozen=True):
    """The node of an actor: Ray's id of the node, its address, and the build of its Clipper."""

    node: str
    host: str
    build: str

    @property
    def name(self) -> str:
        """The node's name for people: several nodes may share an address."""
        return f"{self.host} ({self.node[:8]})"


class Launched(Struct, frozen=True, tag="launched"):
    """A started container, which is dialled at ``address`` over TLS and shows ``certificate``."""

    address: str
    certificate: str
    pid: int
    warning: str | None = None


class WorkerLaunch(Struct, frozen=True):
    """The settings for a query worker's start. The actor adds those of its node; see ``WorkerStart`` for the rest."""

    name: str
    config: dict[str, Any]
    environment: dict[str, str]
    note: dict[str, Any]


class WorkerLaunched(Struct, frozen=True, tag="worker launched"):
    """A started query worker, and what a later supervisor needs. ``node`` is Ray's id of its node."""

    node: str
    record: ProcessRecord


class NotLaunched(Struct, frozen=True, tag="not launched"):
    reason: str
    log_tail: tuple[str, ...] = ()


class LogPart(Struct, frozen=True):
    """The part of a log from an offset on, decoded as Latin-1, so that each byte is a character."""

    text: str
    next_offset: int


class Noted(Struct, frozen=True):
    """The note by which a later supervisor goes on with an actor: a ``ContainerNote`` as JSON, and the node's name."""

    note: str
    node: str
    token: str
    launched: Launched


def line(message: Request | Reply) -> bytes:
    return msgspec.json.encode(message) + b"\n"
