"""How many replicas a version has: a number, or a range within which the load decides."""

from msgspec import Struct

from clipper.errors import InvalidArgument
from clipper.settings.fields import check_range

# Each is a process with a model in it.
MAX_REPLICAS = 64
# More digits than any number of replicas; Python refuses to read many more, with an error of its own.
_MAX_DIGITS = 9


class ReplicaRange(Struct, frozen=True, forbid_unknown_fields=True):
    """From ``min`` to ``max`` replicas; as text ``1..4``."""

    min: int
    max: int

    def __str__(self) -> str:
        return f"{self.min}..{self.max}"


def read_replicas(text: str) -> int | ReplicaRange:
    """Read ``3``, or ``1..4``: from one to four, as the load decides.

    Raises:
        InvalidArgument: the text is neither, or a number is not at least 1, or the range is empty.
    """
    least, dots, most = text.partition("..")
    if not _is_count(least) or (dots and not _is_count(most)):
        raise InvalidArgument(f"{text!r:.100} is not a number of replicas: expected e.g. 3, or a range such as 1..4")
    if int(least) < 1 or (dots and int(most) < int(least)):
        raise InvalidArgument(f"{text!r}: expected at least 1 replica, and a range that does not end below its start")
    return ReplicaRange(int(least), int(most)) if dots else int(least)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def check_replicas(replicas: int | ReplicaRange) -> None:
    """
    Raises:
        InvalidArgument: a number is not from 1 to ``MAX_REPLICAS``, or the range ends below its start.
    """
    if isinstance(replicas, ReplicaRange):
        check_range("replicas.min", replicas.min, 1, MAX_REPLICAS)
        check_range("replicas.max", replicas.max, replicas.min, MAX_REPLICAS)
    else:
        check_range("replicas", replicas, 1, MAX_REPLICAS)
