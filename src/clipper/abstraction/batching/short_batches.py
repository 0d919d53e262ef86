"""The short batches that are out: their clients ask again once they have their answers."""

from collections import deque

from clipper.abstraction.batching.dispatcher import Batch

# So many of them, in more than one batch, are waited for.
MANY = 8
# One that is out for longer hangs, and is not waited for.
MAX_OUT_S = 0.002


class ShortBatches:
    """Those of all queues of a worker."""

    def __init__(self) -> None:
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
    def are_out(self) -> bool:
        return self._batches > 0

    def bring_more(self, now_s: float) -> bool:
        """Whether so many answers are under way that queries are worth a wait for those who will ask again."""
        self._forget_old(now_s)
        return self._batches > 1 and self._rows >= MANY

    def _forget_old(self, now_s: float) -> None:
        out = self._out
        while out and (not out[0].is_expected or out[0].sent_s < now_s - MAX_OUT_S):
            self.ended(out.popleft())
