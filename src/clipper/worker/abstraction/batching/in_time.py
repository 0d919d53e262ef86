"""Computes the probability that a query put into a version's queue now is answered by its deadline.

Selection needs it before it asks a model. It follows from the scheduler's state: the learned service times, the batches
in flight, and the waiting rows. Two times are compared:

    left   = deadline - now - the time that answers take to leave
    needed = (time until the rows ahead are done) + (time of a batch of one row)
    P      = F(left / needed)

A replica with ``rest`` seconds of batches in flight works off ``1 / row`` rows a second after that, in batches of about
half of the SLO; the rows ahead are done at the time T with ``sum over replicas of max(0, T - rest) / row = ahead``. The
queue is in the order of deadlines, so only rows with an earlier deadline are ahead, and what comes later does not
matter: a batch that takes later rows along still meets the deadline of its most urgent one. F is the distribution of
observed over fitted times, by the five quantiles of ``ServiceTimes``, drawn towards its mean by the root of the number
of batches, since their deviations are independent.

If more rows wait than can be met, the scheduler gives up some of them, from which a later query may profit. P does not
count that: for such a full model it is near 0.
"""

from math import inf, sqrt

from clipper.worker.abstraction.batching.device import Device, first_due_s, rows_due_by
from clipper.worker.abstraction.batching.probing import may_try
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.batching.service_times import LEAST_S, QUANTILES


class InTime:
    """Computes a version's probabilities from its scheduler. A call takes some microseconds, and changes nothing."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def outlook(self, now_s: float, due_s: float) -> tuple[float, float]:
        """Return the probability that a query queued now is answered by ``due_s``, and how many such surely would be.

        The number includes this query: it is below 1 if this query is not sure.

        A version without a replica answers nothing in time. A replica without an answer so far counts as sure.
        """
        scheduler = self._scheduler
        if due_s <= now_s:
            return 0.0, 0.0
        slo_s = scheduler.slo_s
        row_rate, best_s, first_rest_s = 0.0, inf, 0.0
        first: ReplicaState | None = None
        rests: list[tuple[float, float]] = []
        for replica in scheduler.replicas.values():
            if replica.is_draining:
                continue
            if not replica.times.is_known:
                return 1.0, inf if not replica.in_flight else 1.0
            rest_s = replica.busy_s(now_s) if replica.in_flight or replica.devices else 0.0
            if replica.devices:
                rest_s += max([device.queued_s(scheduler.queue, now_s, due_s) for device in replica.devices])
            if not replica.capacity_per_s:
                replica.capacity_per_s = replica.rows_per_s(slo_s)
            rests.append((rest_s, replica.capacity_per_s))
            row_rate += replica.capacity_per_s
            if rest_s + replica.times.one_row_s < best_s:
                best_s, first_rest_s, first = rest_s + replica.times.one_row_s, rest_s, replica
        if first is None:
            return 0.0, 0.0
        times, queue = first.times, scheduler.queue
        ahead, head_due_s, start_s = 0, due_s, first_rest_s
        if queue.length or scheduler.suspects.by_name:
            ahead, head_due_s = self._ahead(due_s)
            start_s = max(start_s, done_s(ahead, rests))
        margin_s = first.margin_s(slo_s)
        left_s, head_left_s = due_s - now_s - margin_s, head_due_s - now_s - margin_s
        needed_s = max(start_s + times.mean_s(1), LEAST_S)
        # All waiting rows go into the next batch, which has to meet the deadline of the first query in the queue.
        together = min(ahead // len(rests) + 1, first.limit) if ahead else 1
        together_s = max(first_rest_s + times.mean_s(together), LEAST_S)
        ratios, slow = times.ratios(together), times.sure_times(together)
        further = min(left_s / slow - needed_s, head_left_s / slow - together_s) * row_rate + 1.0
        if further >= 1.0:
            return 1.0, further
        # Batches of about half of the SLO, of which one is in flight.
        batches = 1.0 + (first_rest_s > 0.0) + 2.0 * (start_s - first_rest_s) / slo_s
        return share_within(min(left_s / needed_s, head_left_s / together_s), ratios, batches), further

    @property
    def is_idle(self) -> bool:
        """Whether the version has a replica, and no query waits or is in flight."""
        scheduler = self._scheduler
        has_batches = any(replica.in_flight for replica in scheduler.replicas.values())
        return bool(scheduler.replicas) and not has_batches and not scheduler.has_work

    def may_try(self, now_s: float) -> bool:
        """Whether the version idles and may get a query only to measure its speed: see ``probing.may_try``."""
        return self.is_idle and all(may_try(each, now_s) for each in self._scheduler.replicas.values())

    @property
    def rows_per_s(self) -> float:
        """How many rows the version answers a second; 0 if that is not known."""
        return sum(each.capacity_per_s for each in self._scheduler.replicas.values() if not each.is_draining)

    @property
    def devices(self) -> set[Device]:
        """The accelerators on which its replicas compute, as far as they are known."""
        return {device for each in self._scheduler.replicas.values() if not each.is_draining for device in each.devices}

    def alone_s(self) -> float:
        """Return the time within which a query with nothing ahead of it is answered; infinite if not known."""
        known = [each.times for each in self._scheduler.replicas.values() if each.times.is_known]
        return min((times.slow_s(1) for times in known), default=inf)

    def _ahead(self, due_s: float) -> tuple[int, float]:
        """Return how many rows are served before a row with this deadline, and the first deadline among them all.

        The rows include those that are kept apart.
        """
        queue, suspects = self._scheduler.queue, self._scheduler.suspects
        ahead = suspects.length if suspects.by_name else 0
        if not queue.length:
            return ahead, due_s
        return ahead + rows_due_by(queue, due_s), min(due_s, first_due_s(queue))


def done_s(rows: float, replicas: list[tuple[float, float]]) -> float:
    """Return when replicas, each busy at first and then working off so many rows a second, have done ``rows``."""
    if len(replicas) == 1:
        rest_s, per_s = replicas[0]
        return rest_s + rows / per_s if per_s > 0 else inf
    rate, started = 0.0, 0.0
    at_s = inf
    for rest_s, per_s in sorted(replicas):
        if rest_s >= at_s:
            break
        rate += per_s
        started += rest_s * per_s
        at_s = (rows + started) / rate if rate > 0 else inf
    return at_s


def share_within(ratio: float, ratios: tuple[float, ...], batches: float) -> float:
    """Return F: the share of observed times that are at most ``ratio`` times the fitted time of so many batches."""
    mean, shrink = sum(ratios) / len(ratios), 1.0 / sqrt(batches)
    below, before = 0.0, mean + (2 * ratios[0] - ratios[1] - mean) * shrink
    if ratio <= before:
        # All times alike: they are in time or not.
        return 1.0 if ratio >= before >= mean else 0.0
    for place, each in enumerate(ratios):
        end = mean + (each - mean) * shrink
        if ratio < end:
            return below + (QUANTILES[place] - below) * (ratio - before) / (end - before)
        below, before = QUANTILES[place], end
    end = mean + (2 * ratios[-1] - ratios[-2] - mean) * shrink
    return below + (1.0 - below) * (ratio - before) / (end - before) if ratio < end else 1.0
