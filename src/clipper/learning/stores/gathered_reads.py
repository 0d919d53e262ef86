"""Gathers reads of single states, and does many at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from clipper.errors import StoreUnavailable
from clipper.learning.stores.store import Amount

log = logging.getLogger(__name__)

# The name of a state: the application's id, and the context's name.
State = tuple[str, str]
# The numbers and arrays of a state, or why it cannot be read.
Read = dict[str, Amount] | StoreUnavailable

# States that are read in one step: some milliseconds, in which the store does nothing else.
READ_AT_ONCE = 100


class GatheredReads:
    """Reads states one step after another. States that are asked for during a step are read together in the next.

    A step costs a thread or a connection, and a new context is read for each query in it.
    """

    def __init__(self, read: Callable[[Sequence[State]], Awaitable[list[Read]]]) -> None:
        """``read`` reads at most ``READ_AT_ONCE`` states; it raises StoreUnavailable if none can be read."""
        self._read = read
        self._wanted: list[tuple[State, asyncio.Future[dict[str, Amount]]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def load(self, application: str, context: str) -> dict[str, Amount]:
        """See ``Store.load``."""
        future: asyncio.Future[dict[str, Amount]] = asyncio.get_running_loop().create_future()
        self._wanted.append(((application, context), future))
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read_wanted())
        return await future

    async def load_many(self, application: str, contexts: Sequence[str]) -> list[Read]:
        """See ``Store.load_many``."""
        found: list[Read] = []
        for start in range(0, len(contexts), READ_AT_ONCE):
            found += await self._read([(application, context) for context in contexts[start : start + READ_AT_ONCE]])
        return found

    async def close(self) -> None:
        """Wait until all reads are done."""
        if self._reading is not None:
            await self._reading

    async def _read_wanted(self) -> None:
        """Read all keys that wait; if a step fails, every waiting read fails with it."""
        while self._wanted:
            now, self._wanted = self._wanted[:READ_AT_ONCE], self._wanted[READ_AT_ONCE:]
            try:
                found = await self._read([state for state, _ in now])
            except Exception as error:
                failure = error
                if not isinstance(failure, StoreUnavailable):  # such as a damaged row: nobody may wait for ever
                    log.exception("failed to read learned states")
                    failure = StoreUnavailable(f"learned states cannot be read: {error!r:.200}")
                now, self._wanted = now + self._wanted, []
                found = [failure] * len(now)
            for (_, future), each in zip(now, found):
                if future.done():
                    continue  # nobody waits for it any more
                if isinstance(each, StoreUnavailable):
                    future.set_exception(each)
                else:
                    future.set_result(each)
