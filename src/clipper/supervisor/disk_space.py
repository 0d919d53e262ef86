"""Decides which disks have too little room, by what is free on them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

_MIB = 1024 * 1024
# One commit of the selection store with its journal may need as much, so less is as good as nothing.
FULL_BYTES = _MIB
# What a server writes in an hour without a bound of its own (learned state, events, environments of new models) is less
# than this; on a small disk a tenth of it is.
LOW_BYTES = 1024 * _MIB
LOW_SHARE = 0.1
# A disk about the bound does not come and go: what is too little ends above the bound times this.
ENDS_ABOVE = 1.25

State = Literal["room", "low", "full"]


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A folder's disk.

    Attributes:
        needs: what is refused once it is full, as the subject and verb of a sentence.
        free_bytes: what the server may still write.
    """

    path: str
    needs: tuple[str, ...]
    free_bytes: int
    size_bytes: int


class DiskSpace:
    """Facts in by ``look``, problems out."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self.facts: tuple[DiskFacts, ...] = ()

    def look(self, facts: Sequence[DiskFacts]) -> None:
        self.facts = tuple(facts)
        self._states = {one.path: state_of(one, self._states.get(one.path, "room")) for one in facts}

    def problems(self) -> list[str]:
        """A line for each disk that is full or nearly full: which folder, how much is free, what is refused."""
        return [_text(one, self._states[one.path]) for one in self.facts if self._states[one.path] != "room"]


def state_of(disk: DiskFacts, before: State) -> State:
    """How a disk is, after it was ``before``."""
    full, low = FULL_BYTES, min(LOW_BYTES, LOW_SHARE * disk.size_bytes)
    if disk.free_bytes < full * (ENDS_ABOVE if before == "full" else 1):
        return "full"
    return "low" if disk.free_bytes < low * (1 if before == "room" else ENDS_ABOVE) else "room"


def _text(disk: DiskFacts, state: State) -> str:
    free = f"{disk.free_bytes / _MIB:,.1f} MiB of {disk.size_bytes / _MIB:,.0f} MiB are free"
    if state == "full":
        return f"the disk of {disk.path} is full, {free}: {_joined(disk.needs)}; queries are answered. Free some space"
    return f"the disk of {disk.path} is nearly full, {free}: once it is full, {_joined(disk.needs)}"


def _joined(parts: Collection[str]) -> str:
    return ", and ".join(parts)
