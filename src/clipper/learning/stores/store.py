"""The port of the stores of learned state.

A store holds a set of named numbers and arrays for each (application, context). It only ever adds to them, so any
number of workers and machines may write, and what is read is the sum of what all of them have learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipper.errors import StoreUnavailable

# A number, or float64 of shape (n,). All amounts of one name have one kind and size.
FLOAT = np.dtype("<f8")
Amount = float | NDArray[np.float64]

# The context of an application's own state, which learns from all of its feedback.
EVERYONE = ""

# Feedback on inputs may come at any time; a repetition within this time is recognised.
MIN_KEEP_S = 600.0

# Bound of an application's kept ids, however long its feedback may be repeated: some 150 MB.
MAX_IDS = 1_000_000

# Some tens of milliseconds of work.
EVICT_CHUNK = 2000
# Workers look for changes four times a second; one that has not done so for this long is replaced.
TOLD_FOR_S = 60.0
# Changes that a worker is told of at once: those of two seconds at 10,000 pieces of feedback a second. One that could
# not look for longer gets the rest the next times. A commit changes at most a tenth of that.
TOLD_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Observation:
    """A scored piece of feedback.

    Attributes:
        id: names the feedback: feedback that is sent twice has one id, and counts once. None if it is sent only once.
        application: the application's id; a new application of the same name has another.
        increments: the amounts to add, by context and number.
        keep_s: how long its id is kept at least. The time is stored with the id, since other workers that share the
            store expire ids without knowing the application and how long its feedback may come.
    """

    id: str | None
    application: str
    increments: Mapping[str, Mapping[str, Amount]]
    keep_s: float = MIN_KEEP_S


class Store(Protocol):
    """Every method raises ``StoreUnavailable`` if the store cannot do it now; it may be called again later.

    Attributes:
        commit_at_once: the most observations that one commit is to have.
    """

    @property
    def commit_at_once(self) -> int: ...

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        """Add all increments: when this returns, whoever reads the store sees them.

        Return which observations were new; others are not added again.

        Raises:
            StoreUnavailable: none was added; or all were, the answer was lost, and ``changes`` reports their states.
        """
        ...

    async def sync(self) -> None:
        """Wait until what this process has committed before survives a kill of every process.

        Raises:
            StoreUnavailable: of all that was committed since the last ``sync``, some may get lost.
        """
        ...

    async def load(self, application: str, context: str) -> dict[str, Amount]:
        """Return the numbers and arrays of one state; empty if nothing was ever added."""
        ...

    async def load_many(self, application: str, contexts: Sequence[str]) -> list[dict[str, Amount] | StoreUnavailable]:
        """Return the states of several contexts, in their order; an error in place of one that cannot be read."""
        ...

    async def changes(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Return states, as (application, context), that have changed since ``cursor``, and the next cursor.

        States that only this process has changed may be left out: whoever commits knows what changes. A cursor of -1
        only asks for the present cursor.
        """
        ...

    async def forget(self, application: str, context: str, names: Sequence[str]) -> None:
        """Delete numbers of a state that no longer count."""
        ...

    async def expire(self) -> None:
        """Forget expired ids of feedback."""
        ...

    async def evict_ids(self, application: str, keep: int) -> int:
        """Forget ids of feedback beyond ``keep``, first those that expire soonest; return their number.

        At most ``EVICT_CHUNK`` at once, as in ``evict``. If their feedback is sent again, it counts again.
        """
        ...

    async def contexts(self, application: str, limit: int) -> tuple[int, list[str]]:
        """Return an application's number of contexts, and at most ``limit`` of them, the latest feedback first."""
        ...

    async def forget_context(self, application: str, context: str) -> bool:
        """Forget a context, and report it as ``evict`` does; return whether there was anything to forget."""
        ...

    async def evict(self, application: str, keep: int) -> int:
        """Forget contexts beyond ``keep``, first those whose last feedback is the oldest; return their number.

        At most ``EVICT_CHUNK`` at once, since commits wait meanwhile. ``changes`` reports them for ``TOLD_FOR_S``:
        whoever has one in memory must read it again, or it would add to the context by a clock that begins anew.
        """
        ...

    async def drop(self, application: str) -> None:
        """Forget a removed application."""
        ...

    async def close(self) -> None: ...
