"""The port of the stores that learned state is kept in, and which one an address means.

A store holds, for each (application, context), a set of named numbers and arrays of them. It only ever adds to them, so
that any number of workers and machines may write, and what is read is the sum of what all of them have learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# A number, or float64 of shape (n,). All of one name are of one kind and size.
FLOAT = np.dtype("<f8")
Amount = float | NDArray[np.float64]

# The context under which an application's own state is kept: what it has learned from all of its feedback.
EVERYONE = ""

# Feedback on inputs may come at any time; sent again within this, it is recognised.
MIN_KEEP_S = 600.0

# Ids that are kept of an application at most, however long their feedback may come again: some 150 MB.
MAX_IDS = 1_000_000

# Some tens of milliseconds of work.
EVICT_CHUNK = 2000
# Workers look at what has changed four times a second; one that has not for so long is replaced.
TOLD_FOR_S = 60.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One piece of feedback, scored.

    Attributes:
        id: names the feedback: the same feedback sent twice has one id, and counts once.
        application: the application's id, which a new application of the same name does not share.
        increments: what to add, by context and number.
        keep_s: for how long its id is kept at least. It goes with it, since others who share a store, and clear it up,
            know neither the application nor how long its feedback may come.
    """

    id: str
    application: str
    increments: Mapping[str, Mapping[str, Amount]]
    keep_s: float = MIN_KEEP_S


class Store(Protocol):
    """Every method raises ``StoreUnavailable`` if the store cannot do it now; it may be called again later."""

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        """Add all increments at once and durably: when this returns, they survive a kill of every process.

        Returns which observations were new; what was seen before is not added again.
        """
        ...

    async def load(self, application: str, context: str) -> dict[str, Amount]:
        """The numbers and arrays of one state; empty if nothing was ever added."""
        ...

    async def changes(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Which states have changed since ``cursor``, as (application, context), and the cursor from now on.

        A cursor of -1 asks for the present one alone.
        """
        ...

    async def forget(self, application: str, context: str, names: Sequence[str]) -> None:
        """Delete numbers of a state that count for nothing any more."""
        ...

    async def expire(self) -> None:
        """Forget the ids of feedback whose time is over."""
        ...

    async def evict_ids(self, application: str, keep: int) -> int:
        """Forget ids of feedback beyond ``keep``, those first whose time is over soonest; return how many went.

        At most ``EVICT_CHUNK``, as ``evict``. Sent again, their feedback counts again.
        """
        ...

    async def contexts(self, application: str, limit: int) -> tuple[int, list[str]]:
        """How many contexts an application has, and at most ``limit`` of them: first those with the latest feedback."""
        ...

    async def forget_context(self, application: str, context: str) -> bool:
        """Forget one, and tell of it as ``evict`` does; return whether there was anything to forget."""
        ...

    async def evict(self, application: str, keep: int) -> int:
        """Forget contexts beyond ``keep``, those first whose last feedback is the longest ago; return how many went.

        At most ``EVICT_CHUNK``, since commits wait meanwhile. ``changes`` tells of them for ``TOLD_FOR_S``: who has one
        in memory has to read it again, lest he adds to it by a clock that begins anew.
        """
        ...

    async def drop(self, application: str) -> None:
        """Forget an application that is gone."""
        ...

    async def close(self) -> None: ...
