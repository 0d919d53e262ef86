"""Group commit: observations that come while the store is busy go into its next batch together."""

import asyncio
import logging
from collections import deque

import numpy as np

from clipper.errors import ClipperError, Overloaded, StoreUnavailable
from clipper.selection.stores.store import EVERYONE, Observation, Store

log = logging.getLogger(__name__)

# In one transaction: some milliseconds of work, during which other workers wait.
MAX_BATCH = 1000
# Told at once that theirs is durable, each of which adds it in memory.
MAX_TOLD = 100
# Waiting, at 50,000 a second, for 0.2 s; beyond it the store is not keeping up, and saying so is better.
MAX_WAITING = 10_000


# Of what waits, in arrays: some hundred times what other observations take together.
MAX_WAITING_ARRAYS_BYTES = 64 * 1024 * 1024


class Committer:
    """Writes observations to the store, in the order in which they came.

    Attributes:
        between_batches: held while a batch is written; who holds it reads what no commit is changing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[tuple[Observation, asyncio.Future[bool]]] = deque()
        self._waiting_arrays_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.between_batches = asyncio.Lock()

    def submit(self, observation: Observation) -> "asyncio.Future[bool]":
        """Return a future of whether it was new, done once it is durable.

        It ends in ``StoreUnavailable`` if the store cannot be written; then nothing of it was added.

        Raises:
            Overloaded: too many are waiting.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((observation, future))
        self._waiting_arrays_bytes += _arrays_bytes(observation)
        if self._task is None:
            self._task = loop.create_task(self._write())
        return future

    def check_room(self) -> None:
        """Raises:
        Overloaded: ``submit`` would raise it now.
        """
        if not self.has_room:
            raise Overloaded(
                f"{len(self._waiting)} observations wait for the selection store, which is the most that may: "
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
                    self._waiting_arrays_bytes -= sum(_arrays_bytes(observation) for observation, _ in batch)
                    await self._write_batch(batch)
                    # Whoever waits for these has heard, and has added them in memory, before anybody reads the store.
                    await asyncio.sleep(0)
        finally:
            self._task = None

    async def _write_batch(self, batch: "list[tuple[Observation, asyncio.Future[bool]]]") -> None:
        try:
            are_new = await self._store.commit([observation for observation, _ in batch])
        except ClipperError as error:
            _fail(batch, error)
        except Exception as error:  # whatever it is, those who wait must hear, and the next batch be written
            log.exception("a batch of %d observations could not be written", len(batch))
            _fail(batch, StoreUnavailable(f"selection store failed: {type(error).__name__}: {error}"))
        else:
            for index, ((_, future), is_new) in enumerate(zip(batch, are_new)):
                if not future.done():
                    future.set_result(is_new)
                if index % MAX_TOLD == MAX_TOLD - 1:
                    await asyncio.sleep(0)


def _arrays_bytes(observation: Observation) -> int:
    """An application has arrays, and a context none, so one look is enough."""
    common = observation.increments.get(EVERYONE, {})
    return sum(amount.nbytes for amount in common.values() if isinstance(amount, np.ndarray))


def _fail(batch: "list[tuple[Observation, asyncio.Future[bool]]]", error: ClipperError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
