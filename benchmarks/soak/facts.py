"""What is known of a soak when it is over; its JSON."""

from msgspec import Struct


class Taken(Struct, frozen=True, array_like=True):
    """By one process at one time, ``at_s`` from the run's beginning; memory in bytes.

    Attributes:
        pss: resident, of pages that are shared its share.
        uss: resident, and nobody else's.
        descriptors: but for clients' connections.
        waited_s: for how long in all its first thread could have run and had no processor.
        blocks: of Python's that a worker or a container has in use; 0 of the supervisor.
        malloc_bytes: that malloc has given out in a worker or a container; 0 of the supervisor.
    """

    at_s: float
    rss: int
    pss: int
    uss: int
    descriptors: int
    threads: int
    waited_s: float = 0.0
    blocks: int = 0
    malloc_bytes: int = 0


class Life(Struct):
    """One process, from when it was first seen: ``supervisor``, ``worker 0``, or a replica's id."""

    name: str
    pid: int
    taken: list[Taken] = []


class Disk(Struct, frozen=True, array_like=True):
    """Bytes of the home: ``logs`` of all logs, SQLite's among them, and of the store, which have bounds of their own;
    ``rest`` of all else.

    ``processes`` have the home's name.
    """

    at_s: float
    logs: int
    rest: int
    processes: int


class Done(Struct, frozen=True, array_like=True):
    """One act, ``at_s`` from the run's beginning; ``failed`` says how, if it did."""

    at_s: float
    what: str
    failed: str = ""


class Asked(Struct, frozen=True):
    """What became of one stream.

    Attributes:
        ends: answered, or why not or with what, by how many.
        lost: without an answer, or with one of 5xx, though no worker had just been killed.
        late: answered after the objective.
    """

    name: str
    offered: int
    ends: dict[str, int]
    lost: int
    late: int
    p50_ms: float
    p99_ms: float


class Facts(Struct, frozen=True):
    duration_s: float
    saturation_per_s: float
    rate_per_s: float
    asked: tuple[Asked, ...]
    acts: tuple[Done, ...]
    lives: tuple[Life, ...]
    disk: tuple[Disk, ...]
    problems: tuple[str, ...]
