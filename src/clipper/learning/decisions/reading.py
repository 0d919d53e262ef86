"""Reads a decision log block by block, so that memory holds only a block. The log may be written meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clipper.errors import Unavailable
from clipper.learning.decisions.records import (
    BLOCK_HEAD,
    MAX_BLOCK_BYTES,
    SEGMENT_HEAD,
    Damaged,
    Decision,
    Judgement,
    Setting,
    decode_block,
    split,
)
from clipper.learning.decisions.segments import Segment, segments

# The time after a query came within which it is written: its SLO is at most ten minutes, and its block may wait.
MOST_DELAY_S = 3600.0

Read = tuple[Setting, Decision] | Judgement


@dataclass(slots=True)
class LogReader:
    """Reads a log.

    Attributes:
        since_s, until_s: only decisions from ``since_s`` on and before ``until_s`` are read, in seconds since 1970.
            Feedback may come at any later time.
        torn: segments that end within a block, because a worker is writing or was killed.
        damaged: why other segments could not be read to their end, by name.
    """

    folder: Path
    application: str | None = None
    since_s: float | None = None
    until_s: float | None = None
    torn: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)

    def decisions(self) -> Iterator[list[tuple[Setting, Decision]]]:
        """Yield the decisions of each block, oldest segment first. Raises Unavailable if the folder cannot be read."""
        for segment in self._segments():
            if self.until_s is not None and segment.began_s >= self.until_s + MOST_DELAY_S:
                continue
            for block in self._blocks(segment):
                piece = [each for each in block if isinstance(each, tuple) and self._wants(*each)]
                if piece:
                    yield piece

    def input_types(self) -> tuple[str, ...]:
        """Return the types of the inputs that are kept with these decisions. Raises Unavailable as ``decisions``."""
        with_inputs = (
            setting.input_type
            for piece in self.decisions()
            for setting, decision in piece
            if decision.input is not None and setting.input_type is not None
        )
        return tuple(dict.fromkeys(with_inputs))

    def judgements(self) -> Iterator[list[Judgement]]:
        """Yield all feedback on the application, block by block. Raises Unavailable if the folder cannot be read."""
        for segment in self._segments():
            for block in self._blocks(segment):
                piece = [
                    each
                    for each in block
                    if isinstance(each, Judgement) and self.application in (None, each.application)
                ]
                if piece:
                    yield piece

    def _wants(self, setting: Setting, decision: Decision) -> bool:
        return (
            (self.application is None or setting.application == self.application)
            and (self.since_s is None or decision.time_s >= self.since_s)
            and (self.until_s is None or decision.time_s < self.until_s)
        )

    def _segments(self) -> list[Segment]:
        try:
            return segments(self.folder)
        except OSError as error:
            raise Unavailable(f"the decision log cannot be read: {error}; run this as the server's user") from error

    def _blocks(self, segment: Segment) -> Iterator[list[Read]]:
        """Yield the blocks of a segment, if it was last written at a wanted time."""
        try:
            yield from self._read(segment)
        except FileNotFoundError:  # the oldest segment was removed to make room
            return
        except OSError as error:
            self.damaged[segment.path.name] = f"it cannot be read: {error}"

    def _read(self, segment: Segment) -> Iterator[list[Read]]:
        """Yield the blocks of a segment. Raises OSError if the file cannot be read."""
        name = segment.path.name
        with segment.path.open("rb") as file:
            if self.since_s is not None and segment.path.stat().st_mtime < self.since_s:
                return
            head = file.read(len(SEGMENT_HEAD))
            if head != SEGMENT_HEAD:
                if SEGMENT_HEAD.startswith(head):
                    self.torn.add(name)
                else:
                    self.damaged[name] = f"it begins with {head!r}, which this version does not know"
                return
            while header := file.read(BLOCK_HEAD.size):
                if len(header) < BLOCK_HEAD.size:
                    self.torn.add(name)
                    return
                size_bytes, checksum = BLOCK_HEAD.unpack(header)
                if size_bytes > MAX_BLOCK_BYTES:
                    self.damaged[name] = f"a block claims {size_bytes} bytes"
                    return
                payload = file.read(size_bytes)
                if len(payload) < size_bytes:
                    self.torn.add(name)
                    return
                try:
                    block = list(split(decode_block(payload, checksum)))
                except Damaged as error:
                    self.damaged[name] = str(error)
                    return
                yield block
