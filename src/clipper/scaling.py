"""Between how many replicas a version may be scaled by its load."""

from msgspec import Struct


class ReplicaRange(Struct, frozen=True, forbid_unknown_fields=True):
    """From ``min`` to ``max`` replicas; as text ``1..4``."""

    min: int
    max: int

    def __str__(self) -> str:
        return f"{self.min}..{self.max}"
