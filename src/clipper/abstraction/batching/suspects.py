"""Keeps one application's failing inputs from the other applications of a version.

If the model raises for a batch, every query in it waits until the bad inputs are found, and some containers fail the
whole batch with the words of one input. So an application whose input failed beside another application's is a
*suspect*: its work waits in a queue of its own, and its batches hold nobody else's work. A row that failed in a mixed
batch is evaluated again apart, so an application never reads an error of another one's input, whatever the container
does.

- **Batch size.** One row after a failure; each full batch without one doubles it. Finding all bad inputs of ``n`` takes
  up to ``2n - 1`` calls, which may take ``WORST_SHARE`` of the smallest SLO.
- **Fair shares.** A replica that idles takes the work that has had the least of the model's time so far; the trusted
  applications together weigh as many as they are. So a suspect delays another's query by one of its batches.
- **Trust.** After ``LEAST_CLEAN`` rows in a row without a failure it is trusted again, and with each relapse after
  twice as many: one that alternates good and bad inputs does not stay among the others.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from clipper.abstraction.batching.deadline_queue import DeadlineQueue, Taken
from clipper.abstraction.work import Work

LEAST_CLEAN, MOST_CLEAN = 200, 100_000
MOST_ROWS = 16
WORST_SHARE = 0.25
# Whoever asked for less than a fair share so far is ahead of the others for at most this much of the model's time.
CREDIT_S = 0.5
# Names of applications are forgotten beyond this many: those of a registry are few, and some were deleted.
MAX_KNOWN = 1024


class Suspect(msgspec.Struct, eq=False):
    """An application whose inputs have failed.

    Attributes:
        queue: its work.
        limit: rows of its next batch.
        clean: rows since its last failure; ``needed`` of them make it trusted.
        served_s: the model's time that it has had, on a scale that all who wait share.
    """

    queue: DeadlineQueue
    limit: int
    clean: int
    needed: int
    served_s: float


class Suspects:
    """The applications that query a version, and those among them whose work is kept apart.

    Attributes:
        known: names of the applications that have queried it.
        by_name: the suspects.
        arrivals: number of their queries ever queued.
    """

    def __init__(self, trusted: DeadlineQueue, max_length: int, max_bytes: int) -> None:
        """``max_length`` and ``max_bytes`` bound what all suspects have queued, so one may queue a large batch."""
        self._trusted = trusted
        self._max_length, self._max_bytes = max_length, max_bytes
        self.known: set[str] = set()
        self.by_name: dict[str, Suspect] = {}
        self.arrivals = 0
        self._needed: dict[str, int] = {}
        self._trusted_served_s = 0.0

    @property
    def length(self) -> int:
        """Number of their queued pieces."""
        return sum([suspect.queue.length for suspect in self.by_name.values()])

    @property
    def size_bytes(self) -> int:
        return sum([suspect.queue.size_bytes for suspect in self.by_name.values()])

    def queue_of(self, source: str) -> DeadlineQueue:
        """Return the queue where an application's work waits."""
        suspect = self.by_name.get(source)
        return self._trusted if suspect is None else suspect.queue

    def meet(self, source: str) -> bool:
        """Note that an application queries the version. Return whether it is a suspect."""
        if source not in self.known:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
                self._needed.clear()
            self.known.add(source)
        return source in self.by_name

    def push(self, source: str, work: Work) -> bool:
        """Queue work of a suspect. Return False if what all suspects have queued leaves no room for it."""
        if self.length >= self._max_length or self.size_bytes + len(work.row) > self._max_bytes:
            return False
        suspect = self.by_name[source]
        if not suspect.queue.length:
            suspect.served_s = max(suspect.served_s, self._trusted_served_s - CREDIT_S)
        is_accepted = suspect.queue.push(work)
        self.arrivals += is_accepted
        return is_accepted

    def judge(self, works: Sequence[Work], failed: Collection[int]) -> None:
        """Learn which rows of an answered batch failed."""
        guilty = self.blame(works, failed)
        rows = Counter([work.source for work in works])
        for source, count in rows.items():
            suspect = self.by_name.get(source)
            if suspect is None or source in guilty:
                continue
            suspect.clean += count
            if count >= suspect.limit:
                suspect.limit = min(2 * suspect.limit, MOST_ROWS)
            if suspect.clean >= suspect.needed:
                del self.by_name[source]
                self._trusted.push_back(suspect.queue.clear())

    def blame(self, works: Sequence[Work], failed: Collection[int]) -> set[str]:
        """Make the applications of failed rows suspects. Return their names.

        An application that alone queries a version can only fail itself, and is left alone.
        """
        guilty = {works[row].source for row in failed if row < len(works)}
        if len(self.known) > 1:
            for source in guilty:
                suspect = self.by_name.get(source) or self._suspect(source)
                suspect.limit, suspect.clean = 1, 0
        return guilty

    def are_unclear(self, works: Sequence[Work], failures: Mapping[int, str]) -> tuple[bool, bool]:
        """Return whether the failures of a batch may be about other inputs of it, and of other applications.

        They may be if several applications have work in it, or if all of it failed with one message: so answer
        containers that do not look for the bad input.
        """
        is_mixed = len({work.source for work in works}) > 1
        is_whole = len(failures) == len(works) > 1 and len(set(failures.values())) == 1
        return is_mixed or (is_whole and works[0].source in self.by_name), is_mixed

    @property
    def is_their_turn(self) -> bool:
        """Whether a replica that idles takes work of a suspect now."""
        first = self._first()
        if first is None:
            return False
        self._trusted_served_s = max(self._trusted_served_s, first.served_s - CREDIT_S)
        return not self._trusted.length or self._trusted_served_s > first.served_s

    def take(self, one_row_s: float, slo_s: float) -> Taken:
        """Take the next batch, all of it of one suspect.

        Args:
            one_row_s: what the replica takes for one row; 0 if that is not known.
            slo_s: the smallest SLO of the version's applications.
        """
        suspect = self._first()
        if suspect is None:
            return Taken([], [])
        within = int((WORST_SHARE * slo_s / one_row_s + 1) / 2) if one_row_s > 0 else 1
        return suspect.queue.take(0, max(min(suspect.limit, within), 1), suspect.queue.lanes())

    def _first(self) -> Suspect | None:
        waiting = [suspect for suspect in self.by_name.values() if suspect.queue.length]
        return min(waiting, key=lambda suspect: suspect.served_s) if waiting else None

    def charge(self, source: str, service_s: float) -> None:
        """Count the model's time of a batch: of a suspect, or of all others if ``source`` is empty."""
        suspect = self.by_name.get(source)
        if suspect is not None:
            suspect.served_s += service_s
        elif not source and self.length:
            self._trusted_served_s += service_s / max(len(self.known) - len(self.by_name), 1)

    def expire(self, now_s: float) -> list[Work]:
        """Remove and return their work all of whose deadlines have passed."""
        return [work for suspect in self.by_name.values() for work in suspect.queue.expire(now_s)]

    def clear(self) -> list[Work]:
        """Remove and return all their work."""
        return [work for suspect in self.by_name.values() for work in suspect.queue.clear()]

    def _suspect(self, source: str) -> Suspect:
        needed = self._needed[source] = min(2 * self._needed.get(source, LEAST_CLEAN // 2), MOST_CLEAN)
        queue = DeadlineQueue(self._max_length, self._max_bytes)
        suspect = self.by_name[source] = Suspect(queue, 1, 0, needed, self._trusted_served_s)
        # What waits among the others must not fail them.
        queue.push_back(self._trusted.take_all(lambda work: work.source == source))
        return suspect
