"""A query worker's end of the decision log: takes records on the loop, and writes them on a thread.

Queries are held, and records are made for several at once. A block of records goes to the thread when it is full, or
``FLUSH_S`` after its first query. If the worker is killed, only the records in memory are lost.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clipper.base.background import Background
from clipper.control.statistics import DecisionLogStatistics
from clipper.learning.decisions.records import (
    MAX_INPUT_BYTES,
    BriefDecision,
    Decision,
    Judgement,
    Setting,
    begin_block,
    end_block,
    extend_block,
)
from clipper.learning.decisions.segments import SegmentWriter

# Some thousand records: so the thread wakes rarely, and each write takes milliseconds of the disk's time.
BLOCK_BYTES = 128 * 1024
# A killed worker loses at most the decisions of this time.
FLUSH_S = 0.2
# Blocks that wait for the disk: some seconds of a worker's decisions. Further records are dropped.
MAX_WAITING_BYTES = 16 * 1024 * 1024
# A stop waits this long for the disk.
CLOSE_TIMEOUT_S = 5.0


class _Blocks(Background[bytearray]):
    def __init__(self, segments: SegmentWriter) -> None:
        super().__init__("write the decision log", most=MAX_WAITING_BYTES, close_s=CLOSE_TIMEOUT_S)
        self._segments = segments
        # Only the thread writes this.
        self.written_bytes = 0

    def do(self, items: Sequence[bytearray]) -> None:
        for block in items:
            self._segments.write(block)
            self.written_bytes += len(block)

    def end(self) -> None:
        self._segments.close()


class DecisionLog:
    """A worker's decision log.

    Args:
        folder: the folder that the workers share; made when there is something to write.
        writer: identifies this worker's files.
        max_bytes: bound on the sum of all files in the folder.

    Attributes:
        block: a number that changes with each block; a setting has a place within a block.
        most_input_bytes: the bound of an input; several have to fit into a segment.
        monotonic_began_s: time when the monotonic clock was at 0, in seconds since 1970, as of the last setting.
    """

    def __init__(self, folder: Path, writer: str, max_bytes: int) -> None:
        self._segments = SegmentWriter(folder, writer, max_bytes)
        # A segment holds several blocks, however small it is.
        self._block_bytes = min(BLOCK_BYTES, self._segments.segment_bytes // 4)
        self.most_input_bytes = min(MAX_INPUT_BYTES, self._segments.segment_bytes // 4)
        self.block = 0
        self.monotonic_began_s = 0.0
        self._held: set[Callable[[], None]] = set()
        self._buffer = begin_block()
        self._records = self._settings = 0
        self._timer: asyncio.TimerHandle | None = None
        self._blocks = _Blocks(self._segments)
        self._dropped = 0

    def enter(self, setting: Setting) -> int:
        """Write a setting into the present block and return its place there. A full block makes way for another one."""
        if len(self._buffer) >= self._block_bytes:
            self.flush()
        extend_block(self._buffer, (setting,))
        self.monotonic_began_s = time.time() - time.monotonic()
        self._settings += 1
        return self._settings - 1

    def wait_for(self, write_held: Callable[[], None]) -> None:
        """Call ``write_held``, which passes the queries of an application, before the next block goes to the thread."""
        self._held.add(write_held)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def add(self, records: Sequence[Decision | BriefDecision | Judgement]) -> None:
        """Take records, to be written soon. If the disk does not keep up they are dropped and counted."""
        if not self._blocks.has_room:
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
        held, self._held = self._held, set()
        for write_held in held:
            write_held()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._records and len(self._buffer) < self._block_bytes:
            return
        block, records = self._buffer, self._records
        end_block(block, records + self._settings)
        self._buffer, self._records, self._settings = begin_block(), 0, 0
        self.block += 1
        if records:  # else there are only settings, whose records were dropped
            self._blocks.add(block, len(block), records)

    async def close(self) -> None:
        """Write the remaining records, if the disk allows."""
        self.flush()
        await asyncio.to_thread(self._blocks.close)

    def statistics(self) -> DecisionLogStatistics:
        return DecisionLogStatistics(
            written=self._blocks.done,
            written_bytes=self._blocks.written_bytes,
            dropped={"queue_full": self._dropped + self._blocks.over, "write_failed": self._blocks.failed},
            waiting_bytes=self._blocks.waiting + len(self._buffer),
            problem=self._blocks.problem,
        )
