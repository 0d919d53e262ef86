"""The number of replicas of a version: a number, or a range within which the load decides."""

from msgspec import Struct

from clipper.errors import InvalidArgument
from clipper.settings.fields import check_range

# Each is a process with a model in it.
MAX_REPLICAS = 64
# More digits than any number of replicas; Python refuses to read many more, with an error of its own.
_MAX_DIGITS = 9


class ReplicaRange(Struct, frozen=True, forbid_unknown_fields=True):
    """A range of ``min`` to ``max`` replicas; as text ``1..4``.

    With a ``min`` of 0 a version that nobody asks falls asleep: it has no replica until it is asked again.
    """

    min: int
    max: int

    def __str__(self) -> str:
        return f"{self.min}..{self.max}"


def read_scale(text: str) -> int | ReplicaRange:
    """Read what a version is scaled to: as ``read_replicas``, or ``0``, which unloads it. Raises InvalidArgument."""
    return 0 if text == "0" else read_replicas(text)


def read_replicas(text: str) -> int | ReplicaRange:
    """Read a number such as ``3``, or a range such as ``1..4`` or ``0..4``, within which the load decides.

    Raises InvalidArgument if the text is neither, a number is not at least 1, or the range ends below 1 or its start.
    """
    least, dots, most = text.partition("..")
    if not _is_count(least) or (dots and not _is_count(most)):
        raise InvalidArgument(f"{text!r:.100} is not a number of replicas: expected e.g. 3, or a range such as 1..4")
    if (dots and int(most) < max(int(least), 1)) or (not dots and int(least) < 1):
        raise InvalidArgument(
            f"{text!r} cannot be a number of replicas: expected at least 1, or a range in order, such as 1..4; with "
            "0..1 a model that nobody asks has no replica"
        )
    return ReplicaRange(int(least), int(most)) if dots else int(least)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def check_replicas(replicas: int | ReplicaRange, least: int = 1) -> None:
    """Raise InvalidArgument unless a number is in ``least`` to ``MAX_REPLICAS``, or a range is in order and above 0."""
    if isinstance(replicas, ReplicaRange):
        check_range("replicas.min", replicas.min, 0, MAX_REPLICAS)
        check_range("replicas.max", replicas.max, max(replicas.min, 1), MAX_REPLICAS)
    else:
        check_range("replicas", replicas, least, MAX_REPLICAS)
