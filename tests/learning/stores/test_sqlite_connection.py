"""The thread of a connection to the selection store, and who waits for it."""

import asyncio
import threading
from pathlib import Path

import pytest

from clipper.learning.stores.sqlite_connection import Connection


@pytest.mark.parametrize("turns", range(5))
def test_a_cancellation_that_comes_with_the_answer_is_not_lost(tmp_path: Path, turns: int) -> None:
    """Else what follows the store goes on after a worker's end, with a store that is closed."""

    async def run() -> None:
        connection, may_answer = Connection(tmp_path / "s.sqlite3", "test"), threading.Event()
        asked = asyncio.create_task(connection.run(lambda _: may_answer.wait()))
        await asyncio.sleep(0)
        may_answer.set()
        connection._executor.submit(int).result()  # its thread has answered, and the loop has not seen it yet
        for _ in range(turns):
            await asyncio.sleep(0)
        if asked.cancel():
            with pytest.raises(asyncio.CancelledError):
                await asked
        await connection.close()

    asyncio.run(run())
