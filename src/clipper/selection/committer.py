"""Group commit: observations that arrive while the store is busy are written together in its next batch."""

import asyncio
import logging
from collections import deque

import numpy as np

from clipper.errors import ClipperError, Overloaded, StoreUnavailable
from clipper.selection.stores.store import EVERYONE, Observation, Store

log = logging.getLogger(__name__)

# One transaction: some milliseconds of work, during which other workers wait.
MAX_BATCH = 1000
# Futures that are completed in one turn of the loop; for each, its observation is added to memory.
MAX_TOLD = 100
# At 50,000 observations a second, 0.2 s of them. If more wait, the store does not keep up, and an error is better.
MAX_WAITING = 10_000


# Bound of waiting arrays: some hundred times the size of all other waiting observations.
MAX_WAITING_ARRAYS_BYTES = 64 * 1024 * 1024


class Committer:
    """Writes observations to the store, in the order in which they came.

    Attributes:
        written: ids of the applications that observations came for, until somebody takes them out.
        between_batches: held while a batch is written. Whoever holds it reads states that no commit is changing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Each with the size of its arrays.
        self._waiting: deque[tuple[Observation, asyncio.Future[bool], int]] = deque()
        self._waiting_arrays_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.written: set[str] = set()
        self.between_batches = asyncio.Lock()

    def submit(self, observation: Observation) -> "asyncio.Future[bool]":
        """Return a future that is done once the observation is durable; its result is whether the observation is new.

        It fails with ``StoreUnavailable`` if the store cannot be written; then nothing was added.

        Raises:
            Overloaded: too many observations are waiting.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        arrays_bytes = _arrays_bytes(observation)
        self._waiting.append((observation, future, arrays_bytes))
        self.written.add(observation.application)
        self._waiting_arrays_bytes += arrays_bytes
        if self._task is None:
            self._task = loop.create_task(self._write())
        return future

    def check_room(self) -> None:
        """Check that ``submit`` has room.

        Raises:
            Overloaded: it has none.
        """
        if not self.has_room:
            raise Overloaded(
                f"{len(self._waiting)} observations wait for the selection store, which does not keep up: "
                "try again in a moment"
            )

    @property
    def has_room(self) -> bool:
        return len(self._waiting) < MAX_WAITING and self._waiting_arrays_bytes < MAX_WAITING_ARRAYS_BYTES

    async def _write(self) -> None:
        try:
            while self._waiting:
                async with self.between_batches:
                    batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                    self._waiting_arrays_bytes -= sum(arrays_bytes for _, _, arrays_bytes in batch)
                    await self._write_batch([(observation, future) for observation, future, _ in batch])
                    # Let the waiters run, which add these observations to memory, before anybody reads the store.
                    await asyncio.sleep(0)
        finally:
            self._task = None

    async def _write_batch(self, batch: "list[tuple[Observation, asyncio.Future[bool]]]") -> None:
        try:
            are_new = await self._store.commit([observation for observation, _ in batch])
        except ClipperError as error:
            _fail(batch, error)
        except Exception as error:  # the waiters must get an answer, and the next batch must be written
            log.exception("failed to write a batch of %(count)d observations", {"count": len(batch)})
            _fail(batch, StoreUnavailable(f"selection store failed: {type(error).__name__}: {error}"))
        else:
            for index, ((_, future), is_new) in enumerate(zip(batch, are_new)):
                if not future.done():
                    future.set_result(is_new)
                if index % MAX_TOLD == MAX_TOLD - 1:
                    await asyncio.sleep(0)


def _arrays_bytes(observation: Observation) -> int:
    """Return the size of its arrays. Only the application's own state has arrays, contexts have none."""
    common = observation.increments.get(EVERYONE, {})
    return sum(amount.nbytes for amount in common.values() if isinstance(amount, np.ndarray))


def _fail(batch: "list[tuple[Observation, asyncio.Future[bool]]]", error: ClipperError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
