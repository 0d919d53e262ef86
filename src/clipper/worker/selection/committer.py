"""Group commit: observations that arrive while the store is busy are written together in its next batch.

An observation takes two steps. It is *applied* once the store has it and readers of the store see it; then it is added
to memory, too. It is *durable* once it would survive a kill of every process; then it is acknowledged. Batches are
applied one after another, and no batch waits for an earlier batch to be durable: otherwise a Redis that writes its file
once a second would take a batch a second.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clipper.base.turn_budget import Backlog, TurnBudget, take_step
from clipper.errors import ClipperError, Overloaded, StoreUnavailable
from clipper.learning.stores.store import EVERYONE, Observation, Store

log = logging.getLogger(__name__)

# At 10,000 observations a second, those of a second, in which Redis writes its file. If more wait, the store does not
# keep up, and an error is better.
MAX_WAITING = 10_000
# The bound on the bytes of waiting arrays, which may be some hundred times as large as all other waiting observations.
MAX_WAITING_ARRAYS_BYTES = 64 * 1024 * 1024

# An observation that has waited for this long is refused, and not written: most senders have left by then, and others
# send it again. Without a bound, the last of those that wait for a store that fails slowly would wait for minutes.
MAX_WAIT_S = 10.0

# During a wait for the disk, feedback gathers for this share of the longest recent wait, since an acknowledgement takes
# that long anyway. The second number bounds the time, since other workers do not see the feedback until then.
GATHER_SHARE, MAX_GATHER_S = 0.1, 0.1
# The most waits for the disk at once: a wait that begins during another may end with it. With Redis each has a
# connection.
MAX_SYNCS = 10
# How long a failure counts as a problem: a sender of feedback tries again within this time, or no sender is left.
PROBLEM_S = 60.0
# The factor by which the longest wait counts less with each further wait.
WAIT_KEPT = 0.9

_TOO_LONG = (
    f"the selection store does not keep up: the feedback waited for {MAX_WAIT_S:g} s and was not learned, so send it "
    "again"
)


class Commit(Protocol):
    """Takes the store's answers on an observation: ``remember`` and then ``acknowledge``, once each."""

    def remember(self, was_added: bool) -> None:
        """Take whether the store has added the observation; ``between_batches`` is held meanwhile."""

    def acknowledge(self, result: bool | ClipperError) -> None:
        """Take whether the observation is new, now that it is durable, or why it may not be."""


@dataclass(frozen=True, slots=True)
class _Piece:
    observation: Observation
    commit: Commit
    arrays_bytes: int
    since_s: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pieces that the store has. Their additions are not kept: arrays would be many during the wait for the disk.

    Attributes:
        commits: the takers of the answers, one for each piece.
        are_new: whether each piece was added.
        told: set once all pieces have been added to memory.
    """

    commits: list[Commit]
    are_new: list[bool]
    told: asyncio.Event


class Committer:
    """Writes observations to the store, in the order in which they came.

    Answers are passed on in visits of the turn's budget: those on a batch may take as long as ten turns.

    Attributes:
        written: the ids of applications with observations, until a reader takes them out.
        between_batches: held while a batch is applied. A reader that holds it reads states that no commit is changing.
    """

    def __init__(self, store: Store, turn: TurnBudget) -> None:
        self._store = store
        self._answers = Backlog[Iterator[None]](turn, take_step)
        self._waiting: deque[_Piece] = deque()
        self._waiting_arrays_bytes = 0
        # The applied batches that no wait for the disk covers yet.
        self._applied: list[_Batch] = []
        # The number of pieces that are applied and not acknowledged.
        self._undurable = 0
        self._writing: asyncio.Task[None] | None = None
        # The loop only keeps weak references to tasks.
        self._syncs: set[asyncio.Task[None]] = set()
        self._is_gathering = False
        self._sync_s = 0.0
        self._failed_s = 0.0
        self._why_failed: str | None = None
        self.written: set[str] = set()
        self.between_batches = asyncio.Lock()

    def submit(self, observation: Observation, commit: Commit) -> None:
        """Write an observation with the next batch; ``commit`` takes the store's answers.

        If the store cannot be written, the answers are False and ``StoreUnavailable``: nothing was added. If the store
        took the observation and does not confirm that it is on disk, it may be there or not.

        Raises Overloaded if too many observations are waiting.
        """
        self.check_room()
        now_s = asyncio.get_running_loop().time()
        # They wait in the order of their times.
        piece = _Piece(observation, commit, _arrays_bytes(observation), now_s)
        self._waiting.append(piece)
        self.written.add(observation.application)
        self._waiting_arrays_bytes += piece.arrays_bytes
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    def check_room(self) -> None:
        """Raise Overloaded if ``submit`` has no room."""
        if not self.has_room:
            raise Overloaded(
                f"{len(self._waiting) + self._undurable} observations wait for the selection store, which does not "
                "keep up: try again in a moment"
            )

    @property
    def problem(self) -> str | None:
        """The reason why the store could not be written; None if it was written since, or the failure is long ago."""
        is_over = asyncio.get_running_loop().time() - self._failed_s > PROBLEM_S
        return None if is_over else self._why_failed

    def _failed(self, error: Exception) -> ClipperError:
        if isinstance(error, ClipperError):
            why = error
        else:
            log.error("the selection store failed", exc_info=error)
            why = StoreUnavailable(f"selection store failed: {type(error).__name__}: {error}")
        self._failed_s, self._why_failed = asyncio.get_running_loop().time(), str(why)
        return why

    @property
    def has_room(self) -> bool:
        return (
            len(self._waiting) + self._undurable < MAX_WAITING and self._waiting_arrays_bytes < MAX_WAITING_ARRAYS_BYTES
        )

    async def _write(self) -> None:
        try:
            while self._waiting:
                if self._syncs and len(self._waiting) < self._store.commit_at_once:
                    await asyncio.sleep(self._gather_s)
                async with self.between_batches:
                    pieces = [
                        self._waiting.popleft() for _ in range(min(len(self._waiting), self._store.commit_at_once))
                    ]
                    self._waiting_arrays_bytes -= sum(piece.arrays_bytes for piece in pieces)
                    now_s = asyncio.get_running_loop().time()
                    late = [piece for piece in pieces if now_s - piece.since_s > MAX_WAIT_S]
                    if late:
                        await self._refuse(late, StoreUnavailable(_TOO_LONG))
                    if len(late) < len(pieces):
                        await self._apply(pieces[len(late) :])
        finally:
            self._writing = None

    async def _apply(self, pieces: list[_Piece]) -> None:
        try:
            are_new = await self._store.commit([piece.observation for piece in pieces])
        except Exception as error:  # noqa: BLE001  # who waits must get an answer, and the next batch must go
            await self._refuse(pieces, error)
            return
        # Made in the step in which the store has the pieces: a wait for the disk that begins later covers all of them.
        batch = _Batch([piece.commit for piece in pieces], are_new, asyncio.Event())
        self._applied.append(batch)
        self._undurable += len(pieces)
        self._begin_sync()
        self._answers.add(self._remember(batch))
        await batch.told.wait()

    async def _refuse(self, pieces: list[_Piece], error: Exception) -> None:
        """Tell the senders of pieces that are not stored, before the next batch fails like this one."""
        why = self._failed(error)
        self._undurable += len(pieces)
        batch = _Batch([piece.commit for piece in pieces], [False] * len(pieces), asyncio.Event())
        self._answers.add(self._remember(batch))
        self._answers.add(self._acknowledge(batch, why))
        await batch.told.wait()

    def _remember(self, batch: _Batch) -> Iterator[None]:
        for commit, is_new in zip(batch.commits, batch.are_new):
            try:
                commit.remember(is_new)
            except Exception:  # a bug in Clipper: the other pieces of the batch must be told
                log.exception("an observation could not be added to memory")
            yield
        batch.told.set()

    def _acknowledge(self, batch: _Batch, why: ClipperError | None) -> Iterator[None]:
        for commit, is_new in zip(batch.commits, batch.are_new):
            self._undurable -= 1
            try:
                commit.acknowledge(is_new if why is None else why)
            except Exception:  # as above
                log.exception("an observation could not be acknowledged")
            yield

    @property
    def _gather_s(self) -> float:
        return min(GATHER_SHARE * self._sync_s, MAX_GATHER_S)

    def _begin_sync(self) -> None:
        if self._applied and not self._is_gathering and len(self._syncs) < MAX_SYNCS:
            self._is_gathering = True
            task = asyncio.get_running_loop().create_task(self._sync())
            self._syncs.add(task)
            task.add_done_callback(self._end_sync)

    def _end_sync(self, task: asyncio.Task[None]) -> None:
        self._syncs.discard(task)
        self._begin_sync()

    async def _sync(self) -> None:
        """Wait for the disk, and acknowledge the applied batches."""
        if len(self._syncs) > 1:
            await asyncio.sleep(self._gather_s)
        self._is_gathering = False
        applied, self._applied = self._applied, []
        began_s, why = asyncio.get_running_loop().time(), None
        try:
            await self._store.sync()
        except Exception as error:  # noqa: BLE001  # as above
            why = self._failed(error)
        else:
            self._why_failed = None
        self._sync_s = max(asyncio.get_running_loop().time() - began_s, WAIT_KEPT * self._sync_s)
        for batch in applied:
            await batch.told.wait()
            self._answers.add(self._acknowledge(batch, why))


def _arrays_bytes(observation: Observation) -> int:
    """Return the size of a piece's arrays. Only the application's own state has arrays; contexts have none."""
    common = observation.increments.get(EVERYONE, {})
    return sum(amount.nbytes for amount in common.values() if isinstance(amount, np.ndarray))
