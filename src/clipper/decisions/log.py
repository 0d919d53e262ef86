"""A query worker's end of the decision log: takes records on the loop, and writes them on a thread.

Queries are held, and records made of several at once. A block of records goes to the thread when it is full, or
``FLUSH_S`` after its first query. If the worker is killed, what is in memory is lost, and nothing else.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from clipper.control.statistics import DecisionLogStatistics
from clipper.decisions.records import BriefDecision, Decision, Judgement, Setting, begin_block, end_block, extend_block
from clipper.decisions.segments import SegmentWriter

log = logging.getLogger(__name__)

# Some thousand records, so that the thread has few turns, and milliseconds of the disk's time.
BLOCK_BYTES = 128 * 1024
# A killed worker loses at most the decisions of this time.
FLUSH_S = 0.2
# Blocks that wait for the disk: some seconds of a worker's decisions. Further records are dropped.
MAX_WAITING_BYTES = 16 * 1024 * 1024
# A stop waits this long for the disk.
CLOSE_TIMEOUT_S = 5.0


class Holder(Protocol):
    """An application that holds queries, and gives their records to ``DecisionLog.add``."""

    def write_held(self) -> None: ...


class DecisionLog:
    """One worker's decision log.

    Args:
        folder: shared by the workers; made when there is something to write.
        writer: identifies this worker's files.
        max_bytes: bound of all files in the folder.

    Attributes:
        block: a number that changes with each block; a setting has a place within a block.
        monotonic_began_s: time when the monotonic clock was at 0, in seconds since 1970, as of the last setting.
    """

    def __init__(self, folder: Path, writer: str, max_bytes: int) -> None:
        self._segments = SegmentWriter(folder, writer, max_bytes)
        # Several blocks for each segment, however small that is.
        self._block_bytes = min(BLOCK_BYTES, self._segments.segment_bytes // 4)
        self.block = 0
        self.monotonic_began_s = 0.0
        self._holders: set[Holder] = set()
        self._buffer = begin_block()
        self._records = self._settings = 0
        self._timer: asyncio.TimerHandle | None = None
        self._queue: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        # Only one side writes each of these: the loop or the thread.
        self._given_bytes = self._taken_bytes = 0
        self._written = self._written_bytes = self._failed = 0
        self._problem: str | None = None

    def enter(self, setting: Setting) -> int:
        """Write a setting into the present block, which stays the present one, and return its place there."""
        extend_block(self._buffer, (setting,))
        self.monotonic_began_s = time.time() - time.monotonic()
        self._settings += 1
        return self._settings - 1

    def wait_for(self, holder: Holder) -> None:
        """Let ``holder`` write what it holds before the next block goes to the thread."""
        self._holders.add(holder)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def add(self, records: Sequence[Decision | BriefDecision | Judgement]) -> None:
        """Take records, to be written soon. If the disk does not keep up they are dropped and counted."""
        if self._given_bytes - self._taken_bytes > MAX_WAITING_BYTES:
            self._dropped += len(records)
            return
        extend_block(self._buffer, records)
        self._records += len(records)
        if len(self._buffer) >= self._block_bytes:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Pass the records so far to the thread."""
        holders, self._holders = self._holders, set()
        for holder in holders:
            holder.write_held()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._records:
            return
        block, records = self._buffer, self._records
        end_block(block, records + self._settings)
        self._given_bytes += len(block)
        self._buffer, self._records, self._settings = begin_block(), 0, 0
        self.block += 1
        if self._thread is None:
            # A daemon, so that a hanging disk does not keep the worker from ending.
            self._thread = threading.Thread(target=self._write, name="decision log", daemon=True)
            self._thread.start()
        self._queue.put((block, records))

    async def close(self) -> None:
        """Write the remaining records, if the disk allows."""
        self.flush()
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT_S)

    def statistics(self) -> DecisionLogStatistics:
        dropped = {"queue_full": self._dropped, "write_failed": self._failed}
        return DecisionLogStatistics(
            written=self._written,
            written_bytes=self._written_bytes,
            dropped=dropped,
            waiting_bytes=self._given_bytes - self._taken_bytes + len(self._buffer),
            problem=self._problem,
        )

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            block, records = item
            try:
                self._segments.write(block)
            except OSError as error:
                self._failed += records
                if self._problem is None:  # log it once, not for each block
                    log.warning(
                        "cannot write the decision log, so its records are dropped: %(error)s", {"error": error}
                    )
                self._problem = f"{type(error).__name__}: {error}"
            else:
                self._written += records
                self._written_bytes += len(block)
                if self._problem is not None:
                    log.warning("the decision log can be written again")
                self._problem = None
            self._taken_bytes += len(block)
        self._segments.close()
