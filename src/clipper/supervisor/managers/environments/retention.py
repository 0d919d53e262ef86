"""Decides which environments are kept."""

from collections.abc import Iterable
from dataclasses import dataclass

# One with PyTorch or TensorFlow takes a GB or more. Hardly any user has more models with environments of their own.
MAX_ENVIRONMENTS = 32


@dataclass(frozen=True, slots=True)
class Kept:
    """An environment: when it was last handed out, in seconds since 1970, and whether a process runs in it."""

    key: str
    used_at_s: float
    runs: bool


def to_remove(kept: Iterable[Kept], most: int = MAX_ENVIRONMENTS) -> list[str]:
    """The keys to remove: all but the ``most`` that were used last, and those that a process runs in."""
    latest_first = sorted(kept, key=lambda one: one.used_at_s, reverse=True)
    return [one.key for one in latest_first[most:] if not one.runs]
