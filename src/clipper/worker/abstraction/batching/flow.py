"""The flow of queries through a worker: counts arrivals, and short batches whose clients will soon query again.

All versions of a worker share one flow, since a client's next query may go to another version: exp3 over five models
spreads one client's queries over five queues.
"""

from collections import deque
from typing import Any

import msgspec

from clipper.worker.abstraction.work import Work
from clipper.worker.telemetry.spans import BatchNote

# Waiting for the clients of short batches pays if two or more such batches hold this many rows.
MANY = 8
# A short batch that is in flight for longer hangs: its clients are not waited for.
MAX_OUT_S = 0.002


class Batch(msgspec.Struct, eq=False):
    """Work on its way to a replica.

    Attributes:
        sent_s: when it was sent, on the loop's clock.
        size_bytes: total length of its rows; 0 while all rows have one length.
        was_full: whether the replica's limit kept it from being larger.
        is_short: whether it takes so little time that a second batch behind it hides a round trip.
        is_probe: whether it was sent only to learn if the replica is as slow as believed.
        source: the suspect or the group whose work it contains; empty if its work is not kept apart.
        is_expected: whether it is short and in flight, but not for so long that it hangs.
        note: the note on it; None if none of its queries is traced.
        piece: the rows of a block, in place of ``works``; None if the batch holds queries.
        asks: how many asks of its model wait for answers; meanwhile the model does not compute.
    """

    id: int
    works: list[Work]
    sent_s: float
    expected_s: float
    size_bytes: int
    was_full: bool
    is_short: bool
    is_probe: bool = False
    source: str = ""
    is_expected: bool = False
    note: BatchNote | None = None
    piece: Any = None
    asks: int = 0


class Flow:
    """Counters of a worker. ``arrivals`` is the number of queries ever queued."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._out: deque[Batch] = deque()
        self._batches = self._rows = 0

    def sent(self, batch: Batch) -> None:
        """Note a batch that was sent; ``ended`` follows."""
        if batch.is_short:
            self._forget_old(batch.sent_s)
            self._out.append(batch)
            batch.is_expected = True
            self._batches += 1
            self._rows += len(batch.works)

    def ended(self, batch: Batch) -> None:
        """Note a batch that was answered or whose replica was lost."""
        if batch.is_expected:
            batch.is_expected = False
            self._batches -= 1
            self._rows -= len(batch.works)

    @property
    def has_short_batches(self) -> bool:
        return self._batches > 0

    def brings_more(self, now_s: float) -> bool:
        """Whether enough short batches are in flight to wait for the next queries of their clients."""
        self._forget_old(now_s)
        return self._batches > 1 and self._rows >= MANY

    def _forget_old(self, now_s: float) -> None:
        out = self._out
        while out and (not out[0].is_expected or out[0].sent_s < now_s - MAX_OUT_S):
            batch = out.popleft()
            if batch.is_expected:
                self.ended(batch)
