"""How queries flow through a worker: what comes, and the short batches whose clients will ask again.

All versions of a worker share it, since one client's next query may be for another version: exp3 over five models
spreads one client's queries over five queues.
"""

from collections import deque

import msgspec

from clipper.abstraction.work import Work

# So many rows in more than one short batch are waited for.
MANY = 8
# A short batch that is out for longer hangs, and is not waited for.
MAX_OUT_S = 0.002


class Batch(msgspec.Struct, eq=False):
    """Work on its way to a replica.

    Attributes:
        was_full: the replica's limit is what kept it from being larger.
        is_short: it takes so little that a second one behind it hides a round trip.
        is_expected: it is short, and neither has ended nor seems to hang.
    """

    id: int
    works: list[Work]
    sent_s: float
    expected_s: float
    size_bytes: int
    was_full: bool
    is_short: bool
    is_expected: bool = False


class Flow:
    """Counts of a worker. ``arrivals``: queries that have been queued so far."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._out: deque[Batch] = deque()
        self._batches = self._rows = 0

    def sent(self, batch: Batch) -> None:
        """A batch has left; ``ended`` follows."""
        if batch.is_short:
            self._forget_old(batch.sent_s)
            self._out.append(batch)
            batch.is_expected = True
            self._batches += 1
            self._rows += len(batch.works)

    def ended(self, batch: Batch) -> None:
        """It was answered, or its replica is gone."""
        if batch.is_expected:
            batch.is_expected = False
            self._batches -= 1
            self._rows -= len(batch.works)

    @property
    def has_short_batches(self) -> bool:
        return self._batches > 0

    def brings_more(self, now_s: float) -> bool:
        """Whether so many answers are under way that queries are worth a wait for those who will ask again."""
        self._forget_old(now_s)
        return self._batches > 1 and self._rows >= MANY

    def _forget_old(self, now_s: float) -> None:
        out = self._out
        while out and (not out[0].is_expected or out[0].sent_s < now_s - MAX_OUT_S):
            self.ended(out.popleft())
