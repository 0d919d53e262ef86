"""What a version asks of Ray, read from its spec."""

from clipper.errors import InvalidArgument
from clipper.managers.ray.messages import Placement
from clipper.settings.version import VersionSpec

# Without ``cpus`` a replica's libraries compute in one thread.
DEFAULT_CPUS = 1.0


def placement_of(spec: VersionSpec) -> Placement:
    """What each replica of a version takes of its node."""
    return Placement(
        cpus=DEFAULT_CPUS if spec.cpus is None else spec.cpus,
        gpus=0.0 if spec.gpus is None else gpu_count(spec.gpus),
        memory_bytes=spec.memory_bytes or 0,
    )


def gpu_count(text: str) -> float:
    """How many GPUs: Ray chooses which.

    Raises:
        InvalidArgument: the text is not a number, or Ray refuses the number.
    """
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    # Ray shares one GPU among several, and gives out several as a whole.
    if not 0 < count <= 64 or (count > 1 and count != int(count)):
        raise InvalidArgument(
            f"gpus {text[:200]!r} is not valid for the manager 'ray', which chooses the GPUs: "
            "expected how many (1 to 64), or a part of one such as 0.5"
        )
    return count


def room_of(placement: Placement) -> str:
    """What a placement takes, for people."""
    parts = [f"{placement.cpus:g} CPUs"]
    if placement.gpus:
        parts.append(f"{placement.gpus:g} GPUs")
    if placement.memory_bytes:
        parts.append(f"{placement.memory_bytes / 2**30:.2g} GiB of memory")
    return ", ".join(parts)
