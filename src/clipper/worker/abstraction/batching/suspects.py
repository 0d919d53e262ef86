"""Keeps one application's failing inputs from the other applications of a version.

If the model raises for a batch, every query in it waits until the bad inputs are found, and some containers fail the
whole batch with the words of one input. So an application whose input failed beside another application's is a
*suspect*: its work waits in a queue of its own, and its batches hold nobody else's work. A row that failed in a mixed
batch is evaluated again apart, so an application never reads an error about another application's input, whatever the
container does.

- **Batch size.** One row after a failure; each full batch without a failure doubles it. Finding all bad inputs of ``n``
  takes up to ``2n - 1`` calls, which may take ``WORST_SHARE`` of the smallest SLO.
- **Fair shares.** A replica that idles takes the work that has had the least of the model's time so far; the trusted
  applications together weigh as many as they are. So a suspect delays another's query by one of its batches.
- **Groups.** Rows that are tried again whatever their application is wait in a queue of their own as well: ``UNCLEAR``
  rows, whose batch failed as a whole, in batches as those of a suspect; ``DEADLY`` rows (``Quarantine``) alone, and one
  at a time over all replicas.
- **Trust.** After ``LEAST_CLEAN`` rows in a row without a failure it is trusted again, and after each relapse it needs
  twice as many: an application that alternates good and bad inputs does not stay among the others.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue, Taken
from clipper.worker.abstraction.work import Work

LEAST_CLEAN, MOST_CLEAN = 200, 100_000
MOST_ROWS = 16
WORST_SHARE = 0.25
# The most of the model's time that an application keeps as credit if it has used less than its fair share so far.
CREDIT_S = 0.5
# Names of applications beyond this many are forgotten: a registry has few, and some were deleted.
MAX_KNOWN = 1024
# No name of an application has parentheses.
UNCLEAR, DEADLY = "(unclear)", "(deadly)"
GROUPS = frozenset([UNCLEAR, DEADLY])


class Suspect(msgspec.Struct, eq=False):
    """An application whose inputs have failed, or a group of rows that are tried again.

    Attributes:
        limit: the rows of its next batch.
        clean: the rows since its last failure; ``needed`` rows make it trusted.
        served_s: the model's time that it has used, on a scale that all waiting work shares.
        deaths: how many condemned inputs it has sent.
        held_until_s: the time until which none of its work is sent because of them.
    """

    queue: DeadlineQueue
    limit: int
    clean: int
    needed: int
    served_s: float
    deaths: int = 0
    held_until_s: float = 0.0


class Suspects:
    """The applications that query a version, and the suspects among them, whose work is kept apart.

    Attributes:
        known: names of the applications that have queried it.
        by_name: the suspects, and the groups that have work.
        arrivals: the number of their queries ever queued.
        trial_until_s: while a deadly row is in flight, the deadline of its query, until which the next row waits.
    """

    def __init__(self, trusted: DeadlineQueue, max_length: int, max_bytes: int) -> None:
        """``max_length`` and ``max_bytes`` bound the sum of all suspects' queues, so one may queue a large batch."""
        self._trusted = trusted
        self._max_length, self._max_bytes = max_length, max_bytes
        self.known: set[str] = set()
        self.by_name: dict[str, Suspect] = {}
        self.arrivals = 0
        self._needed: dict[str, int] = {}
        self._trusted_served_s = 0.0
        self.trial_until_s = 0.0

    @property
    def length(self) -> int:
        """The number of their queued pieces."""
        return sum([suspect.queue.length for suspect in self.by_name.values()])

    @property
    def size_bytes(self) -> int:
        return sum([suspect.queue.size_bytes for suspect in self.by_name.values()])

    def queue_of(self, work: Work) -> DeadlineQueue:
        """Return the queue where this work waits."""
        suspect = self.by_name.get(self.name_of(work))
        return self._trusted if suspect is None else suspect.queue

    def name_of(self, work: Work) -> str:
        """Return the group or suspect of work that is kept apart; empty for all other work."""
        return work.group or (work.source if work.source in self.by_name else "")

    def meet(self, source: str) -> bool:
        """Note that an application queries the version. Return whether it is a suspect."""
        if source not in self.known:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
                self._needed.clear()
            self.known.add(source)
        return source in self.by_name

    def push(self, work: Work) -> bool:
        """Queue work that is kept apart. Return False if the queues of all suspects leave no room for it."""
        if self.length >= self._max_length or self.size_bytes + len(work.row) > self._max_bytes:
            return False
        suspect = self._group(work.group) if work.group else self.by_name[work.source]
        if not suspect.queue.length:
            suspect.served_s = max(suspect.served_s, self._trusted_served_s - CREDIT_S)
        is_accepted = suspect.queue.push(work)
        self.arrivals += is_accepted
        return is_accepted

    def push_back(self, works: Sequence[Work]) -> None:
        """Queue work again; some of it may have been marked to be tried apart."""
        for work in reversed(works):
            if work.group:
                work.is_background = False
                self._group(work.group).queue.push_back([work])
            else:
                self.queue_of(work).push_back([work])

    def try_apart(self, works: Sequence[Work]) -> None:
        """Queue rows again, apart, because their error may be about another row of their batch."""
        for work in works:
            if not self.name_of(work):
                work.group = UNCLEAR
        self.push_back(works)

    def judge(self, works: Sequence[Work], failed: Collection[int]) -> None:
        """Learn which rows of an answered batch failed."""
        guilty = self.blame(works, failed)
        group = self.by_name.get(works[0].group)
        if group is not None:
            group.limit = 1 if failed else min(2 * group.limit, MOST_ROWS)
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
        # A copy that probes a replica belongs to no application.
        guilty = {works[row].source for row in failed if row < len(works) and works[row].source}
        if len(self.known) > 1:
            for source in guilty:
                suspect = self.by_name.get(source) or self._suspect(source)
                suspect.limit, suspect.clean = 1, 0
        return guilty

    def are_unclear(self, works: Sequence[Work], failures: Mapping[int, str], *, is_whole: bool) -> tuple[bool, bool]:
        """Return whether the failures of a batch may be about other inputs of it, and of other applications.

        They may be if several applications have work in it, or if all of it failed with the same message, which is how
        containers answer that do not look for the bad input.

        Args:
            is_whole: whether the container answered the whole batch with an error, and not each row.
        """
        is_mixed = len({work.source for work in works}) > 1
        are_alike = len(failures) == len(works) > 1 and len(set(failures.values())) == 1
        return is_mixed or (are_alike and (is_whole or works[0].source in self.by_name)), is_mixed

    def hold(self, source: str, now_s: float, least_s: float, most_s: float) -> bool:
        """Hold an application that sent a condemned input. Return False if no other application queries the version."""
        if len(self.known) <= 1:
            return False
        suspect = self.by_name.get(source) or self._suspect(source)
        suspect.limit, suspect.clean = 1, 0
        # With more deaths than this the power is no longer a float; ``most_s`` is reached long before.
        suspect.held_until_s = now_s + min(least_s * 2.0 ** min(suspect.deaths, 60), most_s)
        suspect.deaths += 1
        return True

    def take_of(self, source: str) -> list[Work]:
        """Remove and return all queued work of a suspect, also in groups."""
        return self._take_where(lambda work: work.source == source)

    def take_rows(self, rows: Collection[bytes]) -> list[Work]:
        """Remove and return all queued work with these inputs, of any application."""
        return self._take_where(lambda work: work.row in rows)

    def _take_where(self, is_meant: Callable[[Work], bool]) -> list[Work]:
        queues = [self._trusted, *(suspect.queue for suspect in self.by_name.values())]
        found = [work for queue in queues for work in queue.take_all(is_meant)]
        self._forget_empty()
        return found

    def is_their_turn(self, now_s: float) -> bool:
        """Whether an idle replica takes work of a suspect now."""
        first = self._first(now_s)
        if first is None:
            return False
        self._trusted_served_s = max(self._trusted_served_s, first.served_s - CREDIT_S)
        return not self._trusted.length or self._trusted_served_s > first.served_s

    def take(self, one_row_s: float, slo_s: float, now_s: float) -> Taken:
        """Take the next batch, all of it of one suspect.

        Args:
            one_row_s: the replica's time for one row; 0 if it is not known.
            slo_s: the smallest SLO of the version's applications.
        """
        suspect = self._first(now_s)
        if suspect is None:
            return Taken([], [])
        within = int((WORST_SHARE * slo_s / one_row_s + 1) / 2) if one_row_s > 0 else 1
        is_deadly = suspect is self.by_name.get(DEADLY)
        most = 1 if is_deadly else max(min(suspect.limit, within), 1)
        taken = suspect.queue.take(most, suspect.queue.lanes())
        if is_deadly and taken.batch:
            self.trial_until_s = taken.batch[0].deadline_s
        return taken

    def answered(self, source: str, works: Sequence[Work], failed: Collection[int], service_s: float) -> None:
        """Note a batch that came back. Its time counts for ``source``, or for all trusted ones if that is empty."""
        suspect = self.by_name.get(source)
        if suspect is not None:
            suspect.served_s += service_s
        elif not source and self.length:
            self._trusted_served_s += service_s / max(len(self.known.difference(self.by_name)), 1)
        self.judge(works, failed)
        self.ended(source)

    def ended(self, source: str) -> None:
        """Note a batch that came back, or whose replica died."""
        if source == DEADLY:
            self.trial_until_s = 0.0
        self._forget_empty()

    def _first(self, now_s: float) -> Suspect | None:
        # A deadly row that hangs is not waited for after its deadline.
        waiting = [
            suspect
            for name, suspect in self.by_name.items()
            if suspect.queue.length and (name != DEADLY or now_s >= self.trial_until_s)
        ]
        return min(waiting, key=lambda suspect: suspect.served_s) if waiting else None

    def expire(self, now_s: float) -> list[Work]:
        """Remove and return their work whose deadlines have all passed."""
        expired = [work for suspect in self.by_name.values() for work in suspect.queue.expire(now_s)]
        self._forget_empty()
        return expired

    def give_up(self, *, is_starting: bool) -> list[Work]:
        """Remove and return the work of all applications that does not wait for a replica, while there is none.

        ``is_starting``: a replica is coming. Queries that no other model may answer wait for it until their deadlines.
        """
        if is_starting:
            return self._take_where(lambda work: not any(waiter.may_wait for waiter in work.waiters))
        works = [*self._trusted.clear()]
        works += [work for suspect in self.by_name.values() for work in suspect.queue.clear()]
        self._forget_empty()
        return works

    def _group(self, name: str) -> Suspect:
        group = self.by_name.get(name)
        if group is None:
            queue = DeadlineQueue(self._max_length, self._max_bytes)
            group = self.by_name[name] = Suspect(queue, 1, 0, 0, self._trusted_served_s)
        return group

    def _forget_empty(self) -> None:
        """Forget groups without work, so that a version without suspects costs nothing."""
        for name in GROUPS.intersection(self.by_name):
            if not self.by_name[name].queue.length:
                del self.by_name[name]

    def _suspect(self, source: str) -> Suspect:
        needed = self._needed[source] = min(2 * self._needed.get(source, LEAST_CLEAN // 2), MOST_CLEAN)
        queue = DeadlineQueue(self._max_length, self._max_bytes)
        suspect = self.by_name[source] = Suspect(queue, 1, 0, needed, self._trusted_served_s)
        # Its work among that of the others must not fail them.
        queue.push_back(self._trusted.take_all(lambda work: work.source == source))
        return suspect
