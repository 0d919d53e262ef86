"""What the scheduler knows of one replica: its times, and what it has in hand."""

from dataclasses import dataclass, field

from clipper.abstraction.batching.controller import Controller
from clipper.abstraction.batching.flow import Batch
from clipper.abstraction.batching.service_times import LEAST_S, ServiceTimes

# A batch that takes less is short. A second one behind it hides a round trip of about 0.2 ms; and replicas that idle
# for so long lose less than a batch costs the worker and the container besides, so short batches may wait for more.
SHORT_S = 0.001
# Behind a batch that takes longer the round trip is no loss, and queries are better bound when it has ended.
AHEAD_BELOW_S = 0.005
# Behind a batch that is not short a second one leaves only so little before its end: before, it would leave with fewer
# queries than it could have gathered.
ROUND_TRIP_S = 0.0003


@dataclass(slots=True)
class ReplicaState:
    """What is known of one replica. ``controller`` is of the policies that set a limit by themselves."""

    id: str
    max_batch: int
    controller: Controller | None
    times: ServiceTimes
    in_flight: dict[int, Batch] = field(default_factory=dict)
    is_draining: bool = False
    batches: int = 0
    last_done_s: float = 0.0
    last_size: int = 0
    last_left: int = 0  # waiting when the last batch came back
    probed_s: float = 0.0
    capacity_per_s: float = 0.0

    @property
    def limit(self) -> int:
        """The largest batch to send now."""
        if self.controller is not None:
            return self.controller.limit
        most = self.times.most_rows()
        return most if most < self.max_batch else self.max_batch

    def batch_limit(self, slo_s: float) -> int:
        """The largest batch that takes half of the SLO: a query then waits for one batch and is in the next."""
        if self.controller is not None:
            return self.controller.limit
        if not self.times.is_known:
            return 1
        return max(1, int(min(self.times.rows_within(slo_s / 2), self.limit)))

    def rows_per_s(self, slo_s: float) -> float:
        """What it answers a second in batches of that size; 0 while nothing is known."""
        if not self.times.is_known:
            return 0.0
        rows = self.batch_limit(slo_s)
        return rows / max(self.times.mean_s(rows), LEAST_S)

    def rest_s(self, now_s: float) -> float:
        """How long it is still expected to be busy with what it has."""
        rest_s = 0.0
        for running in self.in_flight.values():
            began_s = max(running.sent_s, self.last_done_s)
            rest_s += max(0.0, running.expected_s - (now_s - began_s))
        return rest_s

    def may_send_ahead(self, now_s: float, *, will_ask_again: bool) -> bool:
        """Whether what runs will soon be over, and is not overdue: a replica that hangs binds nothing more.

        ``will_ask_again``: the clients that are answered then ask again at once. Then the next batch is better with
        them, unless what runs is short.
        """
        running = next(iter(self.in_flight.values()))
        if running.expected_s > AHEAD_BELOW_S or (will_ask_again and not running.is_short):
            return False
        elapsed_s = now_s - max(running.sent_s, self.last_done_s)
        slow_s = running.expected_s * self.times.ratios(len(running.works))[-1]
        ahead_s = SHORT_S if running.is_short else ROUND_TRIP_S
        return running.expected_s - elapsed_s < ahead_s and elapsed_s < max(slow_s, SHORT_S)
