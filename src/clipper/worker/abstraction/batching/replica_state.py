"""The scheduler's knowledge of one replica: its service times and its batches in flight."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from clipper.worker.abstraction.batching.controller import Controller
from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.device import OVERDUE_SHARE, Device, rows_due_by
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.batching.service_times import LEAST_S, MAX_GROWTH, ServiceTimes

# A batch that takes less than this is short. A second batch behind it hides a round trip of about 0.2 ms. A replica
# that idles for this long loses less than a batch costs the worker and the container, so short batches may wait.
SHORT_S = 0.001
# If a batch takes longer than this, the round trip is negligible, and queries are better bound to a replica only when
# the batch has ended.
AHEAD_BELOW_S = 0.005
# Behind a batch that is not short, a second batch leaves this long before its end. Any earlier, it would leave with
# fewer queries than it could have gathered.
ROUND_TRIP_S = 0.0003
# The weight of the latest batch in the time that answers take to leave, and the largest share of the SLO that this time
# may count as.
ANSWER_GAIN, MAX_ANSWER_SHARE = 0.1, 0.1
# Short batches come thousands of times a second: after the first 64, the scheduler learns from every eighth, and from
# each that follows a slow batch, so that it notices a change of speed. Whether a batch counts must not depend on its
# own time: if all slow batches counted, but only an eighth of the others, a few stalls would make short batches look
# long.
LEARNED_BATCHES, LEARNED_EVERY = 64, 8


@dataclass(slots=True)
class ReplicaState:
    """The state of one replica.

    Attributes:
        max_batch: the largest batch that the replica takes, in rows; smaller if outputs are large.
        controller: sets the batch limit, for the policies that have one; else None.
        last_size: rows of the latest batch that came back.
        last_left: queries that were waiting when it came back.
        last_was_slow: whether that batch was not short.
        asked_s: when it was last sent a batch.
        probed_s: when it was last probed with rows that seem too long, or for being slower than another replica.
        capacity_per_s: cached ``rows_per_s``; 0 if it must be computed anew.
        answer_s: how long after a batch came back its answers had left. The next batch leaves before them.
        devices: the accelerators that it shares, or may share, with replicas of other versions.
    """

    id: str
    max_batch: int
    controller: Controller | None
    times: ServiceTimes
    is_far: bool = False
    devices: tuple[Device, ...] = ()
    in_flight: dict[int, Batch] = field(default_factory=dict)
    is_draining: bool = False
    batches: int = 0
    last_done_s: float = 0.0
    last_size: int = 0
    last_left: int = 0
    last_was_slow: bool = False
    asked_s: float = 0.0
    probed_s: float = 0.0
    capacity_per_s: float = 0.0
    answer_s: float = 0.0

    def release_devices(self) -> None:
        """Give the versions that wait for its devices a turn: rows have left its queue."""
        for device in self.devices:
            device.release()

    @property
    def has_quicker_beside(self) -> bool:
        """Whether a quicker version computes on one of its devices, whose time it would take."""
        return any(device.has_quicker(self) for device in self.devices)

    def limit_beside(self, queue: DeadlineQueue, now_s: float) -> int:
        """Return ``limit``, or fewer rows: those due before other versions' rows, or that make none of them late."""
        limit = self.limit
        for device in self.devices:
            until_s, head_due_s = device.spare_s(queue, now_s)
            if until_s < inf and self.times.is_known:
                fitting = int(self.times.rows_within(until_s - now_s - device.busy_s(now_s, self)))
                limit = min(limit, max(fitting, rows_due_by(queue, head_due_s), 1))
        return limit

    def answered(self, now_s: float) -> None:
        """Note that the answers of the last batch have left."""
        self.answer_s += ANSWER_GAIN * (now_s - self.last_done_s - self.answer_s)

    def margin_s(self, slo_s: float) -> float:
        """Return how long before its deadline a query's batch should come back."""
        return min(self.answer_s, MAX_ANSWER_SHARE * slo_s)

    @property
    def limit(self) -> int:
        """The largest batch to send now, in rows."""
        if self.controller is not None:
            return min(self.controller.limit, self.max_batch)
        most = self.times.largest * MAX_GROWTH or 1
        return most if most < self.max_batch else self.max_batch

    def batch_limit(self, slo_s: float) -> int:
        """Return the largest batch that takes half of the SLO: a query waits for one batch and is in the next."""
        if self.controller is not None:
            return self.limit
        if not self.times.is_known:
            return 1
        return max(1, int(min(self.times.rows_within(slo_s / 2), self.limit)))

    def rows_per_s(self, slo_s: float) -> float:
        """Return the rows answered a second in batches of ``batch_limit``; 0 while nothing is known.

        Replicas of the version that share a device share this rate, too.
        """
        if not self.times.is_known:
            return 0.0
        rows = self.batch_limit(slo_s)
        beside = max([device.replicas_beside(self) for device in self.devices], default=1)
        return rows / max(self.times.mean_s(rows), LEAST_S) / beside

    def wait_s(self, now_s: float) -> float:
        """Return how long a batch that is sent now is expected to wait for earlier batches, here and on its devices."""
        if self.devices:
            return max([device.busy_s(now_s, self) for device in self.devices])
        return self.rest_s(now_s) if self.in_flight else 0.0

    def rest_s(self, now_s: float) -> float:
        """Return how long the batches in flight are expected to keep it busy."""
        rest_s = 0.0
        for running in self.in_flight.values():
            began_s = max(running.sent_s, self.last_done_s)
            rest_s += max(0.0, running.expected_s - (now_s - began_s))
        return rest_s

    def busy_s(self, now_s: float) -> float:
        """Return ``wait_s`` plus an amount that grows with the time for which a batch is overdue."""
        if self.devices:
            return max([device.busy_s(now_s, self) for device in self.devices])
        busy, began_s = 0.0, self.last_done_s
        for number, running in enumerate(self.in_flight.values()):
            passed_s = now_s - max(running.sent_s, began_s) if number == 0 else 0.0
            rest_s = running.expected_s - passed_s
            if rest_s < OVERDUE_SHARE * (passed_s - running.expected_s):
                rest_s = OVERDUE_SHARE * (passed_s - running.expected_s)
            busy += rest_s
        return busy

    def service_s(self, sent_s: float, now_s: float) -> float:
        """Return the service time of a batch that has just come back, without the time of others on its devices."""
        if self.devices:
            return max([device.service_s(sent_s, now_s) for device in self.devices])
        # A batch that was sent behind another began when the other ended.
        began_s = sent_s if sent_s > self.last_done_s else self.last_done_s
        return now_s - began_s

    def take_faster(self, batch: Batch, service_s: float, slo_s: float) -> None:
        """Believe a batch that took less than half of the expected time, if the replica was hardly asked any more."""
        if batch.is_probe or batch.expected_s > slo_s:
            self.times.rescale(service_s / batch.expected_s)

    def learn(self, batch: Batch, service_s: float) -> None:
        """Learn from the time of a batch that has come back."""
        self.batches = batches = self.batches + 1
        follows_slow, self.last_was_slow = self.last_was_slow, service_s >= SHORT_S
        if batches < LEARNED_BATCHES or follows_slow or not batches % LEARNED_EVERY:
            self.times.record(len(batch.works), batch.size_bytes, service_s)
            self.capacity_per_s = 0.0
        if self.controller is not None:
            self.controller.record(len(batch.works), service_s, batch.was_full)

    def share(self, replicas: "Sequence[ReplicaState]", size: int, row_bytes: float) -> int:
        """Return how many of ``size`` queries go here if others idle, too. A batch must not be mostly fixed time."""
        idle = sum(not other.in_flight for other in replicas)
        if idle <= 1 or self.in_flight:
            return size
        times = self.times
        per_row_s = times.per_row_s + times.per_byte_s * row_bytes
        worth = times.fixed_s / per_row_s if per_row_s > 0 else size
        return min(size, max(-(-size // idle), int(worth) + 1))

    def capacity_share(self, replicas: "Sequence[ReplicaState]", slo_s: float) -> float:
        """Return this replica's share of the rows that ``replicas``, including this one, answer together."""
        for each in replicas:
            if not each.capacity_per_s:
                each.capacity_per_s = each.rows_per_s(slo_s)
        return self.capacity_per_s / sum(each.capacity_per_s for each in replicas)

    def free_s(self, now_s: float) -> float:
        """Return when the batches in flight are expected to have ended: in the past if the first is overdue."""
        free_s = now_s
        for number, running in enumerate(self.in_flight.values()):
            began_s = max(running.sent_s, self.last_done_s) if number == 0 else now_s
            free_s += running.expected_s - (now_s - began_s)
        return free_s

    def may_send_ahead(self, now_s: float, *, will_ask_again: bool) -> bool:
        """Whether a second batch may follow now: the first one is nearly over and not overdue.

        A replica whose batch is overdue may hang, and gets no more work.

        Args:
            will_ask_again: whether the clients of the running batch will query again at once. Then the next batch is
                better with their queries in it, unless the running batch is short.
        """
        running = next(iter(self.in_flight.values()))
        # A batch of suspected rows may take longer than expected.
        if running.source or running.expected_s > AHEAD_BELOW_S or (will_ask_again and not running.is_short):
            return False
        elapsed_s = now_s - max(running.sent_s, self.last_done_s)
        slow_s = running.expected_s * self.times.ratios(len(running.works))[-1]
        ahead_s = SHORT_S if running.is_short else ROUND_TRIP_S
        return running.expected_s - elapsed_s < ahead_s and elapsed_s < max(slow_s, SHORT_S)
