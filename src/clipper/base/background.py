"""Work that a loop hands to a thread, such as writing a log, so that a slow disk or receiver delays no query."""

import logging
import threading
from abc import abstractmethod
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Background(Generic[T]):
    """A bounded queue, and the thread that empties it. Items that find no room, or fail, are dropped and counted.

    Args:
        most: bound on the sum of the sizes of the waiting items.
        at_once: the largest number of items that ``do`` gets at once.
        gather_s: how long the thread waits until ``at_once`` items have come.
        close_s: how long ``close`` waits for the thread.

    Attributes:
        task: the thread's work, as the rest of "cannot …"; also the thread's name.
        done, failed, over: numbers of records that were done, that failed, and that were dropped because the queue was
            full.
        problem: why the latest items failed; None if they did not.
    """

    def __init__(self, task: str, *, most: int, at_once: int = 1, gather_s: float = 0.0, close_s: float) -> None:
        self.task, self._most, self._close_s = task, most, close_s
        self._at_once, self._gather_s = at_once, gather_s
        self._queue: SimpleQueue[tuple[T, int, int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._is_closing = False
        # Each counter has a single writer: the loop or the thread.
        self._given = self._taken = self.over = 0
        self.done = self.failed = 0
        self.problem: str | None = None

    @abstractmethod
    def do(self, items: Sequence[T]) -> None:
        """Do these items, on the thread. If it raises anything, they have failed."""

    def end(self) -> None:
        """Release what ``do`` uses, on the thread, after the last item. The default has nothing to release."""

    def give_up(self) -> None:
        """Interrupt ``do`` from another thread: its result is no longer needed."""

    @property
    def waiting(self) -> int:
        """The sum of the sizes of the items that are not done yet."""
        return self._given - self._taken

    @property
    def has_room(self) -> bool:
        return self.waiting < self._most

    def add(self, item: T, size: int = 1, records: int = 1) -> None:
        """Queue an item with this many records, or drop it if there is no room."""
        if not self.has_room:
            self.over += records
            return
        if self._thread is None:
            # A daemon, so that a disk that hangs does not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name=self.task, daemon=True)
            self._thread.start()
        self._given += size
        self._queue.put((item, size, records))
        if self._queue.qsize() >= self._at_once - 1:
            self._wake.set()

    def close(self) -> None:
        """Do all waiting items. Blocks for ``close_s`` at most."""
        if self._thread is None:
            return
        self._is_closing = True
        self._queue.put(None)
        self._wake.set()
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            self.give_up()

    def _run(self) -> None:
        is_over = False
        while not is_over:
            items = [self._queue.get()]
            if self._gather_s and not self._is_closing and self._queue.qsize() < self._at_once - 1:
                self._wake.wait(self._gather_s)
                self._wake.clear()
            items += [self._queue.get() for _ in range(min(self._queue.qsize(), self._at_once - 1))]
            is_over = None in items
            if taken := [item for item in items if item is not None]:
                self._take(taken)
        self.end()

    def _take(self, items: Sequence[tuple[T, int, int]]) -> None:
        records = sum(count for _, _, count in items)
        try:
            self.do([item for item, _, _ in items])
        except Exception as error:  # noqa: BLE001  a disk, a receiver or a library failed: only these records are lost
            self.failed += records
            if self.problem is None:  # log it once, not each time
                log.warning("cannot %(task)s, so its input is dropped: %(error)s", {"task": self.task, "error": error})
            self.problem = f"{type(error).__name__}: {error}"
        else:
            self.done += records
            if self.problem is not None:
                log.warning("can %(task)s again", {"task": self.task})
            self.problem = None
        self._taken += sum(size for _, size, _ in items)
