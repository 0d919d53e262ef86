"""Queries that wait while the state of their context is read from the store."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeAlias

# Contexts that are read at once. The queries of further contexts use the application's state.
MAX_READS = 256

Read: TypeAlias = Callable[[str], Coroutine[None, None, None]]


class ContextReads:
    """Reads each context once, however many queries wait for it, and bounds the wait of each."""

    def __init__(self) -> None:
        # A context stays here until the store has answered, even if no query waits any more.
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._out_of_patience: set[str] = set()
        # The loop only keeps weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def wait(self, read: Read, context: str, patience_s: float, then: Callable[[], None]) -> None:
        """Call ``then`` once the read has ended, or ``patience_s`` after the first query began to wait."""
        if context in self._out_of_patience or (context not in self._waiting and len(self._waiting) >= MAX_READS):
            then()
        elif context in self._waiting:
            self._waiting[context].append(then)
        else:
            self._waiting[context] = [then]
            self._begin(read, context, patience_s)

    def _begin(self, read: Read, context: str, patience_s: float) -> None:
        timer = asyncio.get_running_loop().call_later(patience_s, self._lose_patience, context)
        task = asyncio.ensure_future(read(context))
        self._tasks.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            timer.cancel()
            self._out_of_patience.discard(context)
            for then in self._waiting.pop(context):
                then()

        task.add_done_callback(ended)

    def _lose_patience(self, context: str) -> None:
        self._out_of_patience.add(context)
        waiting, self._waiting[context] = self._waiting[context], []
        for then in waiting:
            then()
