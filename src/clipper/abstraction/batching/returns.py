"""Clients that ask again once they are answered, and how long a replica waits for them.

Clients that wait for answers fall into two halves, one of which runs while the other asks, and each half pays what a
batch costs whatever its size. A replica that waits for those that it has just answered makes one batch of both. Where
clients do not wait for answers nobody comes back, and a wait only makes queries late. So first it is seen whether
they do.
"""

from typing import Protocol

from clipper.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.abstraction.batching.service_times import ServiceTimes

# Only after batches of this many: few clients at a time never wait.
LEAST_ANSWERED = 16
# Only where a batch costs so much beside its rows.
LEAST_FIXED_S = 0.002
# For at most so many times that cost.
MAX_TIMES = 2.0
# Until the first is back, for this part of it, and only for a tenth more of answers a second: it may not come at all.
FIRST_SHARE = 0.5
FIRST_GAIN = 1.1
# The loop's timers are no finer.
LEAST_WAIT_S = 0.0002
# Clients that wait for answers ask again within this part of the time that the batch which answered them took.
WINDOW_SHARE = 0.5
# Of the time between two answers that part is at most so much: else it says nothing.
MOST_EVENLY = 0.8
# The share of those answered who come back moves by this with each batch; from this share on they are waited for.
GAIN = 0.25
BELIEVED = 0.5


class Answering(Protocol):
    """The replica that has answered."""

    times: ServiceTimes
    last_done_s: float
    last_size: int
    last_left: int


class Returns:
    """What share of those answered ask again at once: more queries than come at other times, soon after an answer."""

    __slots__ = ("_answered", "_arrivals", "_early", "_since_s", "_until_s", "share")

    def __init__(self) -> None:
        self.share = 0.0
        self._answered = self._arrivals = self._early = 0
        self._since_s = self._until_s = 0.0

    def answered(self, size: int, arrivals: int, now_s: float, service_s: float) -> None:
        """A batch of so many was answered after ``service_s``; ``arrivals`` have come until now, in all.

        Learns from what came since the batch before: queries that come at any time are spread evenly over the time
        between two answers, and those of clients that ask again are at its beginning.
        """
        if self._answered:
            came = arrivals - self._arrivals
            evenly = min((self._until_s - self._since_s) / max(now_s - self._since_s, 1e-9), MOST_EVENLY)
            early = max(self._early / came - evenly, 0.0) / (1 - evenly) if came else 0.0
            self.share += GAIN * (early * min(came / self._answered, 1.0) - self.share)
        self._answered = size if size >= LEAST_ANSWERED else 0
        self._arrivals, self._early = arrivals, 0
        self._since_s, self._until_s = now_s, now_s + WINDOW_SHARE * service_s

    def look(self, arrivals: int, now_s: float) -> None:
        """``arrivals`` have come until now, in all."""
        if now_s <= self._until_s:
            self._early = arrivals - self._arrivals

    @property
    def are_believed(self) -> bool:
        """Whether most of those that are answered ask again at once."""
        return self.share >= BELIEVED

    def until_s(self, replica: Answering, waiting: int, limit: int, queue: DeadlineQueue, now_s: float) -> float:
        """Until when an idle replica waits for those that it has just answered; a time in the past if it does not.

        It waits as long as that answers more queries a second. A batch of n takes ``t(n)``, and the rest are taken to
        come as fast as those that have come: so it waits while ``all / (rest + t(all)) >= waiting / t(waiting)``.
        """
        times, answered, left = replica.times, replica.last_size, replica.last_left
        fixed_s = times.fixed_s
        everyone = min(left + answered, limit)
        if not self.are_believed or answered < LEAST_ANSWERED or fixed_s < LEAST_FIXED_S or waiting >= everyone:
            return 0.0
        began_s = replica.last_done_s
        back = waiting - left
        if back > 0:
            began_s = max(began_s, queue.oldest_arrival_s())
        elapsed_s = now_s - began_s
        rest_s = (everyone - waiting) * elapsed_s / back if back > 0 else fixed_s * FIRST_SHARE
        gain = everyone * times.mean_s(waiting) / (waiting * (rest_s + times.mean_s(everyone)))
        if back <= 0:
            return began_s + rest_s if gain >= FIRST_GAIN else 0.0
        wait_s = min(fixed_s * MAX_TIMES, elapsed_s + max(rest_s, LEAST_WAIT_S))
        return began_s + wait_s if gain >= 1 else 0.0
