"""Estimates which clients query again once they are answered, and how long a replica waits for them.

Clients that wait for their answers split into two halves: one is being evaluated while the other sends queries, and
each half pays the fixed cost of a batch. A replica that waits for the clients it has just answered puts both halves
into one batch: it saves one fixed time for each round of all clients, and costs the time until all are back. If
clients do not wait for answers, nobody comes back, and a wait only makes queries late. So the worker first measures
whether they come back, and how long they take.
"""

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.replica_state import ReplicaState

# A replica waits only after batches of at least this size: with few clients there is no wait.
LEAST_ANSWERED = 16
# It waits only if the fixed time of a batch is at least this.
LEAST_FIXED_S = 0.002
# It waits for at most this many fixed times.
MAX_TIMES = 2.0
# It waits only if the wait is expected to answer a twentieth more queries a second, since no client may come back.
LEAST_GAIN = 1.05
# The return of a batch's clients is timed once this share of them is back: a few may have left.
MOST_BACK = 0.75
# The return counts as at most this many times the window below: an hour without queries says nothing about the next.
MOST_WINDOWS = 4.0
# The resolution of the loop's timers.
LEAST_WAIT_S = 0.0002
# Clients that wait for their answers query again within this fraction of their batch's service time.
WINDOW_SHARE = 0.5
# That window counts as at most this share of the time between two answers. If it is nearly all of that time, it does
# not distinguish clients that come back from others.
MOST_EVENLY = 0.8
# Weight of the newest batch in the share of clients that come back. Replicas wait once the share is at least BELIEVED.
GAIN = 0.25
BELIEVED = 0.5


class Returns:
    """Estimates how many answered clients query again at once, and when, from the arrivals right after an answer.

    Attributes:
        share: the share of a batch's clients that query again at once.
        each_s: the time until they are back, for each client: the worker reads one after the other.
    """

    __slots__ = ("_answered", "_arrivals", "_early", "_latest_s", "_since_s", "_until_s", "each_s", "share")

    def __init__(self) -> None:
        self.share = self.each_s = 0.0
        self._answered = self._arrivals = self._early = 0
        self._since_s = self._until_s = self._latest_s = 0.0

    def answered(self, size: int, arrivals: int, now_s: float, service_s: float) -> None:
        """Learn from the arrivals since the previous answer.

        Queries that come at any time are spread evenly between two answers; those of clients that query again come at
        its beginning.

        Args:
            size: rows of the batch that was just answered.
            arrivals: total number of queries so far.
        """
        if self._answered:
            came = arrivals - self._arrivals
            if came:
                window_s = self._until_s - self._since_s
                each_s = min(self._latest_s or now_s - self._since_s, MOST_WINDOWS * window_s) / self._answered
                self.each_s += GAIN * (each_s - self.each_s) if self.each_s else each_s
            evenly = min((self._until_s - self._since_s) / max(now_s - self._since_s, 1e-9), MOST_EVENLY)
            early = max(self._early / came - evenly, 0.0) / (1 - evenly) if came else 0.0
            self.share += GAIN * (early * min(came / self._answered, 1.0) - self.share)
        self._answered = size if size >= LEAST_ANSWERED else 0
        self._arrivals, self._early, self._latest_s = arrivals, 0, 0.0
        self._since_s, self._until_s = now_s, now_s + WINDOW_SHARE * service_s

    def look(self, arrivals: int, now_s: float) -> None:
        """Note the arrivals so far, while clients of the last batch may still come back."""
        came = arrivals - self._arrivals
        if now_s <= self._until_s:
            self._early = came
        if self._answered and not self._latest_s and came >= MOST_BACK * self._answered:
            self._latest_s = (now_s - self._since_s) * self._answered / came

    @property
    def are_believed(self) -> bool:
        """Whether most answered clients query again at once."""
        return self.share >= BELIEVED

    def until_s(self, replica: ReplicaState, waiting: int, limit: int, queue: DeadlineQueue, now_s: float) -> float:
        """Return until when an idle replica waits for the clients it has just answered; a past time if it does not.

        A batch of n takes ``t(n)`` with a fixed part ``f``, and clients take ``back`` to return. Two batches with parts
        of the clients take ``f + t(all)``, and a batch with all clients takes ``back + t(all)``: a replica waits if
        that is less. It goes on while ``all / (rest + t(all)) >= waiting / t(waiting)``, where the rest is expected to
        come at the rate of the clients that are back. Clients beyond the batch limit need not come back in time.
        """
        times, answered, left = replica.times, replica.last_size, replica.last_left
        fixed_s = times.fixed_s
        clients = left + answered
        everyone = min(clients, limit)
        if not self.are_believed or answered < LEAST_ANSWERED or fixed_s < LEAST_FIXED_S or waiting >= everyone:
            return 0.0
        back_s = self.each_s * (everyone - max(clients - limit, 0))
        in_parts = clients / (fixed_s + times.mean_s(clients))
        if everyone < LEAST_GAIN * in_parts * (back_s + times.mean_s(everyone)):
            return 0.0
        began_s = replica.last_done_s
        back = waiting - left
        if back <= 0:
            return began_s + fixed_s
        began_s = max(began_s, queue.oldest_arrival_s())
        elapsed_s = now_s - began_s
        rest_s = (everyone - waiting) * elapsed_s / back
        if everyone * times.mean_s(waiting) < waiting * (rest_s + times.mean_s(everyone)):
            return 0.0
        return began_s + min(fixed_s * MAX_TIMES, elapsed_s + max(rest_s, LEAST_WAIT_S))
