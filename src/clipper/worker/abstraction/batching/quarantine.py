"""Keeps inputs that kill replicas from the queries beside them, and from being sent again and again.

No container says which input ended its process. So every input that was in flight when a replica died is tried again
*alone*, and one at a time over all replicas: a good input gets its output, and a deadly input costs no other query. A
model's prediction is a function of its input, so an input may be evaluated twice.

- **Suspected.** An input is remembered for ``SUSPECTED_S`` after a death, even if its query is over by then: a client
  that asks again must not kill a batch again. An answer clears the input.
- **Condemned.** If a replica dies over a suspected input that was alone, the input is no longer sent: queries for it
  fail at once. After a while, ``LEAST_REFUSED_S`` at first and twice as long each time, it is tried once more. So an
  input ends two replicas, and then another replica in each of these times.
- **Held.** If several applications query the version, queries of the application that sent a condemned input are not
  sent for a while, and then one at a time, until its inputs have been answered for long enough (``Suspects``). Another
  death over one of its inputs condemns that input at once. So an application that never sends the same deadly input
  twice ends few replicas, too.

Each query worker learns by itself.
"""

from collections.abc import Sequence

import msgspec
from xxhash import xxh3_128_digest

from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.batching.suspects import DEADLY, Suspects
from clipper.worker.abstraction.work import Work

SUSPECTED_S = 600.0
# Replicas also die of other causes, and then the input is innocent: so the first time is short.
LEAST_REFUSED_S, MOST_REFUSED_S = 5.0, 3600.0
# A replica takes some seconds to come back. The second time is for an application that sends deadly inputs repeatedly.
LEAST_HELD_S, MOST_HELD_S = 5.0, 300.0
# Inputs are remembered by a digest, with some 200 bytes each. A death adds a batch or two; the oldest are forgotten.
MAX_INPUTS = 4096


class Record(msgspec.Struct, eq=False):
    """An input that was in flight when a replica died.

    Attributes:
        deaths: how many replicas died while it was in flight.
        refused_s: how long it is refused if it is condemned next.
        refused_until_s: the time until which it is not sent; 0 if it was not condemned.
        forget_s: the time at which this record is forgotten.
    """

    deaths: int
    refused_s: float
    refused_until_s: float
    forget_s: float


class Quarantine:
    """The inputs that may have killed replicas of a version. ``inputs`` are their records, by digest."""

    def __init__(self, suspects: Suspects, model: str, seed: int) -> None:
        """Make a quarantine. ``seed`` keeps clients from making two inputs with the same digest."""
        self._suspects, self._model, self._seed = suspects, model, seed
        self.inputs: dict[bytes, Record] = {}

    def refusal(self, work: Work, now_s: float) -> str | None:
        """Return why new work is not sent at all, or None. Work that may only be sent alone is marked as such."""
        if self.inputs:
            digest = self._digest(work)
            record = self.inputs.get(digest)
            if record is not None:
                if now_s < record.refused_until_s:
                    return self._verdict(record, now_s)
                if now_s < record.forget_s:
                    work.group = DEADLY
                else:
                    del self.inputs[digest]
        suspect = self._suspects.by_name.get(work.source)
        if suspect is not None and suspect.deaths:
            if now_s < suspect.held_until_s:
                return (
                    f"containers of {self._model} died while evaluating inputs of {work.source}: {suspect.deaths} of "
                    "these inputs are refused, and its other queries are not sent for "
                    f"{suspect.held_until_s - now_s:.0f} s"
                )
            work.group = DEADLY
        return None

    def lost(self, batches: Sequence[Batch], now_s: float) -> tuple[list[Work], dict[str, list[Work]]]:
        """Learn from the batches, oldest first, that a replica had in flight when it died.

        Returns:
            The work to be tried again alone, and by message the work that fails: because it was condemned, or because
            its application is held.
        """
        failed: dict[str, list[Work]] = {}
        again = [work for batch in batches for work in batch.works]
        # Equal inputs that wait, e.g. because the cache is off, would end a replica, too.
        equal = self._suspects.take_rows({work.row for work in again})
        if len(batches) == len(again) == 1 and self._is_condemned(again[0], now_s):
            work = again.pop()
            failed[self._verdict(self._condemn(work, now_s), now_s)] = [work, *equal]
            equal = []
            # A copy that probes a replica belongs to no application.
            if work.source and self._suspects.hold(work.source, now_s, LEAST_HELD_S, MOST_HELD_S):
                held = self._suspects.take_of(work.source)
                if held:
                    failed[self.refusal(held[0], now_s) or ""] = held
        for work in again:
            self._suspect(work, now_s)
        again += equal
        for work in again:
            work.group = DEADLY
        return again, failed

    def answered(self, works: Sequence[Work]) -> None:
        """Clear these inputs, which a replica has answered."""
        for work in works:
            if work.group == DEADLY:
                self.inputs.pop(self._digest(work), None)

    def _verdict(self, record: Record, now_s: float) -> str:
        return (
            f"{record.deaths} containers of {self._model} died while evaluating this input: it is not sent for "
            f"{record.refused_until_s - now_s:.0f} s"
        )

    def _is_condemned(self, work: Work, now_s: float) -> bool:
        record, suspect = self.inputs.get(self._digest(work)), self._suspects.by_name.get(work.source)
        is_suspected = record is not None and now_s < record.forget_s
        return is_suspected or (suspect is not None and suspect.deaths > 0)

    def _condemn(self, work: Work, now_s: float) -> Record:
        record = self._suspect(work, now_s)
        record.refused_until_s = now_s + record.refused_s
        record.forget_s = record.refused_until_s + SUSPECTED_S
        record.refused_s = min(2 * record.refused_s, MOST_REFUSED_S)
        return record

    def _suspect(self, work: Work, now_s: float) -> Record:
        digest = self._digest(work)
        # Entered anew, so that the dict is in the order of the latest deaths.
        record = self.inputs.pop(digest, None) or Record(0, LEAST_REFUSED_S, 0.0, 0.0)
        if len(self.inputs) >= MAX_INPUTS:
            del self.inputs[next(iter(self.inputs))]
        record.deaths += 1
        record.forget_s = now_s + SUSPECTED_S
        self.inputs[digest] = record
        return record

    def _digest(self, work: Work) -> bytes:
        return xxh3_128_digest(work.row, self._seed)
