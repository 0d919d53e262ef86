"""The port of the stores of learned state.

A store holds a set of named numbers and arrays for each (application, context). It only ever adds to them, so any
number of workers and machines may write, and a read returns the sum of what all of them have learned.
"""

from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
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

# Bound of an application's kept ids, for however long its feedback may be repeated: some 150 MB.
MAX_IDS = 1_000_000

# Some tens of milliseconds of work.
EVICT_CHUNK = 2000
# Workers look for changes four times a second; a worker that has not done so for this long is replaced.
TOLD_FOR_S = 60.0
# Changes that are reported to a worker at once: those of two seconds at 10,000 pieces of feedback a second. A worker
# that could not look for longer gets the rest the next times. A commit changes at most a tenth of that.
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


class Mailbox(Protocol):
    """The way to workers of other servers that share a store; ``members``: instances of those that can be asked."""

    @property
    def members(self) -> Container[int]: ...

    async def ask(self, instance: int, request: bytes, timeout_s: float) -> bytes:
        """Return the reply of a member. Raises ClipperError if there is none in time, or the member ends meanwhile."""
        ...

    async def run(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Be a member, and ``answer`` requests, until cancelled; finish the answers that are under way then."""
        ...

    async def meet(self) -> None:
        """Hear of members that have come or gone since; this happens once a second anyway. Raises StoreUnavailable."""
        ...


class Queries(Protocol):
    """Answered queries, for feedback that comes to another server. See ``Remembering``, which keeps them here."""

    async def keep(
        self, queries: Mapping[int, tuple[bytes, bytes]], shared: Mapping[bytes, bytes], keep_s: float, evicted: int
    ) -> None:
        """Keep queries of this worker for this long, or a little longer. Raises StoreUnavailable.

        Args:
            queries: by id, the name of the part that the query shares with others (without a space), and the query's
                text.
            shared: the shared parts of queries, by name.
            evicted: this worker's queries up to this id are no longer needed.
        """
        ...

    async def find(self, ids: Collection[int]) -> dict[int, tuple[bytes, bytes]]:
        """Return the texts of those queries that are kept, each with what it shares. Raises StoreUnavailable."""
        ...


class Store(Protocol):
    """A store. Every method raises ``StoreUnavailable`` if it cannot be done now; it may be called again later.
    ``commit_at_once``: the most observations that a commit should have.
    """

    @property
    def commit_at_once(self) -> int: ...

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        """Add all increments: when this returns, every reader of the store sees them.

        Return which observations were new; others are not added again. Raises StoreUnavailable if no observation was
        added; or all were added, but the answer was lost, and ``changes`` reports their states.
        """
        ...

    async def sync(self) -> None:
        """Wait until all earlier commits of this process would survive a kill of every process. Raises StoreUnavailable
        if some of the commits since the last ``sync`` may get lost.
        """
        ...

    async def load(self, application: str, context: str) -> dict[str, Amount]:
        """Return the numbers and arrays of a state; empty if nothing was ever added."""
        ...

    async def load_many(self, application: str, contexts: Sequence[str]) -> list[dict[str, Amount] | StoreUnavailable]:
        """Return the states of several contexts, in their order, with an error for each that cannot be read."""
        ...

    async def changes(self, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Return states, as (application, context), that have changed since ``cursor``, and the next cursor.

        States that only this process has changed may be left out: it knows its own commits. A cursor of -1 only asks
        for the present cursor.
        """
        ...

    async def forget(self, application: str, context: str, names: Sequence[str]) -> None:
        """Delete numbers of a state that no longer count."""
        ...

    async def expire(self) -> None:
        """Forget expired ids of feedback."""
        ...

    async def evict_ids(self, application: str, keep: int) -> int:
        """Forget ids of feedback beyond ``keep``, beginning with those that expire soonest; return their number.

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
        """Forget contexts beyond ``keep``, beginning with the oldest last feedback; return their number.

        At most ``EVICT_CHUNK`` at once, since commits wait meanwhile. ``changes`` reports them for ``TOLD_FOR_S``: a
        worker that has such a context in memory must read it again, because the context's clock begins anew.
        """
        ...

    async def drop(self, application: str) -> None:
        """Forget a removed application."""
        ...

    def mailbox(self, instance: int) -> Mailbox | None:
        """Return the mailbox of the worker of this instance; None for a store that only one server uses."""
        ...

    def queries(self) -> Queries | None:
        """Return the store's queries; None for a store that only one server uses."""
        ...

    async def close(self) -> None: ...
