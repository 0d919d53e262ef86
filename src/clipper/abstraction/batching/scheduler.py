"""When batches leave, with what, for which replica: all decisions behind one version's queue are made here.

The shell (``abstraction.model_queue``) tells what happened and does what comes out. Facts in: what waits, the replicas
and what is known of their times, the time. Decisions out: batches, drops, and when to look again.
"""

from bisect import bisect_left

import msgspec

from clipper.abstraction.batching.arrival_rate import ArrivalRate
from clipper.abstraction.batching.controller import BATCH_SHARE_OF_SLO, Controller
from clipper.abstraction.batching.deadline_queue import MAX_DUE, DeadlineQueue, Lane, Taken
from clipper.abstraction.batching.flow import Batch, Flow
from clipper.abstraction.batching.goodput import Choice, Outlook, choose
from clipper.abstraction.batching.replica_state import SHORT_S, ReplicaState
from clipper.abstraction.batching.returns import LEAST_FIXED_S, Returns
from clipper.abstraction.batching.service_times import ServiceTimes
from clipper.abstraction.work import NOBODY, Work

# Short batches come thousands of times a second: after the first ones every eighth is learned from.
LEARNED_BATCHES, LEARNED_EVERY = 64, 8
# Two batches hide the round trip to a replica; a third would only wait inside it, bound to it.
MAX_IN_FLIGHT = 2
# So many rows make what a short batch costs beside them, some 0.1 ms here and in the container, small for each.
ENOUGH = 16
# A short batch waits no longer for more, nor for longer than this share of the SLO. Where many models share the
# queries, and each has few, waiting saves batches: exp3 over five models answers a sixth more (8 % twice).
MAX_SHORT_WAIT_S = 0.002
MAX_SHORT_WAIT_SHARE = 0.1
# Near what the replicas can do, a batch that would answer fewer a second than come waits for more, as long as its
# deadlines allow. Below that load a replica that idles is no loss, and a query leaves at once.
NEAR_CAPACITY = 0.9
WAITS_BELOW = 1.2
# It waits for no more than so many times what comes while the fixed part of a batch's time passes.
WORTH_TIMES = 2.0
# It waits no longer once nothing has come for so many times the mean time between two queries.
MAX_GAPS = 10.0
# Long rows are left out of a batch that answers so many times as many a second without them.
WORTH_LEAVING = 1.05
# A replica this much slower than the fastest one leaves what it cannot meet to that one.
SLOWER_TIMES = 1.2
# What a timer of the loop may be late by.
TIMER_LATE_S = 0.001
# How long a replica too slow for any query is left alone between two looks at whether it still is; a query's input is
# sent a second time for that.
PROBE_EVERY_S = 1.0
# The same in its own batches: it is asked for a tenth of its time at most.
PROBE_TIMES = 10.0
# Work of the background may keep a replica busy while so few predictions are expected to come meanwhile.
QUIET_ARRIVALS = 0.05
# A query that comes while work of the background runs must still be met by this share of its SLO.
BACKGROUND_SHARE = 0.8
# Of a batch of predictions, rows of the background that may ride along.
RIDE_SHARE = 0.25

# What is left of the SLO under the paper's controllers is for waiting: a version whose every batch takes longer than
# the SLO is still sent fresh queries, so that it can be seen to recover.
MAX_RESERVED_SHARE = 0.8


class Decision(msgspec.Struct):
    """What to do now.

    Attributes:
        batches: to be sent.
        late: to be answered as timed out: they cannot be met any more.
        shed: to be answered as overloaded: others are, for whom there is more time.
        wake_s: when to look again, if nothing happens before; None if there is no need.
    """

    batches: list[tuple[ReplicaState, Batch]]
    late: list[Work]
    shed: list[Work]
    wake_s: float | None = None


class Scheduler:
    """One version's queue and replicas.

    Each piece of work that ``push`` accepts leaves exactly once: in a batch that ``finished`` or ``lose_replica``
    returns, as ``late`` or ``shed`` of a decision, or expired by a later ``push``. Lost work may be pushed back and
    leaves again.
    """

    def __init__(self, max_length: int, max_bytes: int, delay_s: float, flow: Flow) -> None:
        self.queue = DeadlineQueue(max_length, max_bytes)
        self.replicas: dict[str, ReplicaState] = {}
        self._delay_s = delay_s
        self._flow = flow
        self._next_id = 0
        self._rate = ArrivalRate()
        self._returns = Returns()
        self.slo_s = 1.0

    # -- replicas --------------------------------------------------------------------------------------

    def add_replica(
        self, replica_id: str, max_batch: int, controller: Controller | None = None, *, is_fixed: bool = False
    ) -> ReplicaState:
        """One more replica. It is taken to be like the others until its own batches tell.

        Args:
            max_batch: the largest batch it takes.
            controller: what sets a limit below that, if anything does.
            is_fixed: batches may be as large as that from the first one on.
        """
        times = ServiceTimes()
        known = [other.times for other in self.replicas.values() if other.times.is_known]
        if known:
            times.adopt(min(known, key=lambda other: other.mean_s(1)))
        if is_fixed:
            times.largest = max_batch
        replica = self.replicas[replica_id] = ReplicaState(replica_id, max_batch, controller, times)
        return replica

    def drain_replica(self, replica_id: str) -> None:
        """Give it no more work; what it has in flight is still awaited."""
        self.replicas[replica_id].is_draining = True

    def resume_replica(self, replica_id: str) -> None:
        """It is wanted after all: give it work again."""
        self.replicas[replica_id].is_draining = False

    def lose_replica(self, replica_id: str) -> list[Work]:
        """It is gone. Returns its work in flight, most urgent first, for ``push_back`` or failure."""
        replica = self.replicas.pop(replica_id)
        return [work for batch in replica.in_flight.values() for work in batch.works if work.waiters is not NOBODY]

    def set_slo(self, slo_s: float) -> None:
        """The smallest SLO of the applications that ask this version: controllers and short waits go by it."""
        self.slo_s = slo_s
        for replica in self.replicas.values():
            if replica.controller is not None:
                replica.controller.set_budget(slo_s * BATCH_SHARE_OF_SLO)

    # -- queries ---------------------------------------------------------------------------------------

    def push(self, work: Work, now_s: float) -> tuple[bool, list[Work]]:
        """Queue new work. Returns whether there was room, and what had to be expired to find out."""
        if self.queue.push(work):
            return True, []
        expired = self.queue.expire(now_s)
        return bool(expired) and self.queue.push(work), expired

    def finished(self, replica: ReplicaState, batch_id: int, now_s: float) -> tuple[Batch, float] | None:
        """A batch came back, evaluated: learn from it. Returns it with its service time, None if it is unknown."""
        batch = replica.in_flight.pop(batch_id, None)
        if batch is None:
            return None
        # A batch that was sent while another was running began when that one ended.
        began_s = batch.sent_s if batch.sent_s > replica.last_done_s else replica.last_done_s
        service_s = now_s - began_s
        size = len(batch.works)
        if size and replica.times.is_known and 2 * service_s < batch.expected_s > self._main_slo_s(self.queue.lanes()):
            # It was too slow to be asked but now and then: one look has to do to see that it no longer is.
            replica.times.rescale(service_s / batch.expected_s)
        replica.batches += 1
        if replica.batches < LEARNED_BATCHES or service_s >= SHORT_S or not replica.batches % LEARNED_EVERY:
            replica.times.observe(size, batch.size_bytes, service_s)
            replica.capacity_per_s = 0.0
        replica.last_done_s, replica.last_size, replica.last_left = now_s, size, self.queue.length
        if replica.controller is not None:
            replica.controller.observe(size, service_s, batch.was_full)
        if service_s >= LEAST_FIXED_S:
            self._returns.answered(size, self.queue.arrivals, now_s, service_s)
        return batch, service_s

    # -- decisions -------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether queries come one at a time: then one that has just come need not wait for others to be read.

        Not where batches take long: should more come with it after all, they would have to wait for it.
        """
        if self.queue.length != 1 or self._flow.has_short_batches:
            return False
        for replica in self.replicas.values():
            if replica.in_flight or replica.last_size != 1 or replica.times.mean_s(1) >= SHORT_S:
                return False
        return True

    def waits_for_flow(self, now_s: float, *, have_come: bool) -> bool:
        """Whether a short batch waits while more queries come. ``have_come``: some did in this turn of the loop."""
        waiting = self.queue.length
        if not waiting or waiting >= ENOUGH:
            return False
        for replica in self.replicas.values():
            if waiting >= replica.limit or replica.times.mean_s(1) >= SHORT_S:
                return False
        return now_s < self.flow_wait_ends_s() and (have_come or self._flow.brings_more(now_s))

    def flow_wait_ends_s(self) -> float:
        """Until when a short batch of what waits now is held back for more, at most."""
        return self.queue.oldest_arrival_s() + min(MAX_SHORT_WAIT_S, self.slo_s * MAX_SHORT_WAIT_SHARE)

    def decide(self, now_s: float) -> Decision:
        """Give idle replicas batches, the fastest first; then a second one to those whose first is nearly over."""
        decision, queue = Decision([], [], []), self.queue
        self._returns.look(queue.arrivals, now_s)
        if not queue.length:
            if queue.background:
                self._send_background(now_s, decision)
            return decision
        replicas = [replica for replica in self.replicas.values() if not replica.is_draining]
        if not replicas:
            decision.late = queue.expire(now_s)
            if len(decision.late) >= MAX_DUE:
                _wake_at(decision, now_s)
            return decision
        if len(replicas) > 1:
            replicas.sort(key=lambda replica: replica.times.mean_s(1))
        for in_flight in range(MAX_IN_FLIGHT):
            for replica in replicas:
                has_room = len(replica.in_flight) == in_flight
                if in_flight and has_room:
                    has_room = replica.may_send_ahead(now_s, will_ask_again=self._returns.are_believed)
                if has_room and (not self._give(replica, replicas, now_s, decision) or not queue.length):
                    # What waits does so for this one; a slower one does not take it meanwhile.
                    return decision
        return decision

    def _give(self, replica: ReplicaState, replicas: list[ReplicaState], now_s: float, decision: Decision) -> bool:
        """Send a replica what it should have now. Returns False if it waits and others are to leave it the queue."""
        queue, times, limit = self.queue, replica.times, replica.limit
        lanes, waiting = queue.lanes(), queue.length
        self._rate.look(queue.arrivals, now_s, self._main_slo_s(lanes))
        size = min(waiting, limit)
        row_bytes = sum([lane.size_bytes for lane in lanes]) / waiting if queue.varies else 0.0
        first_due_s = lanes[0].works[0].due_s if len(lanes) == 1 else min(lane.works[0].due_s for lane in lanes)
        if first_due_s < now_s:
            # What a more patient query has joined waits again.
            due = queue.take_due_before(now_s)
            decision.late += due
            if len(due) >= MAX_DUE:
                # There may be more of them, and others have their turn before.
                _wake_at(decision, now_s)
                return False
            return not queue.length or self._give(replica, replicas, now_s, decision)
        wait_s = replica.rest_s(now_s) if replica.in_flight else 0.0
        slow_s = wait_s + times.slow_s(size, size * row_bytes)
        if waiting < limit and (self._delay_s or self._returns.are_believed):
            # No wait makes the most urgent late.
            until_s = min(self._delayed_until_s(replica, waiting, limit, now_s), first_due_s - slow_s - TIMER_LATE_S)
            if until_s > now_s:
                _wake_at(decision, until_s)
                return True
        if not times.is_known:
            self._send(replica, queue.take(0, size, lanes), now_s, decision)
            return True
        if replica.controller is None:
            needed_per_s = self._needed_per_s(replica, replicas, lanes)
            if now_s + slow_s <= first_due_s:
                # All can be met. Whether they should go now, and all to this one:
                if size < limit and needed_per_s > NEAR_CAPACITY * replica.capacity_per_s:
                    until_s = self._short_until_s(replica, size, row_bytes, needed_per_s, first_due_s)
                    if until_s > now_s:
                        _wake_at(decision, until_s)
                        return False
                if len(replicas) > 1:
                    size = self._share(replica, replicas, size, row_bytes)
                taken = queue.take(0, size, lanes)
                if queue.background and not queue.length:
                    self._ride_along(replica, taken, first_due_s, now_s, decision)
                self._send(replica, taken, now_s, decision)
                return True
            choice, lanes = self._choose(replica, lanes, wait_s, now_s, needed_per_s, limit)
        else:
            # What the paper's controllers know of time is the limit: whoever can still be met goes, oldest first.
            due_s = now_s + wait_s + min(times.mean_s(size), MAX_RESERVED_SHARE * self.slo_s)
            late = sum(bisect_left(lane.works, due_s, key=lambda work: work.due_s) for lane in lanes)
            choice = Choice(late, min(limit, waiting - late), float(waiting - late), 0.0, True)
        if choice.in_time > 0:
            taken = queue.take(choice.drop, choice.take, lanes)
            if times.mean_s(1) > SLOWER_TIMES * replicas[0].times.mean_s(1):
                # A faster one may still meet those that this one cannot.
                queue.push_back(taken.dropped)
                taken.dropped = []
            self._sort_out(taken, now_s + wait_s + times.mean_s(1) * times.ratios(1)[0], decision)
            self._send(replica, taken, now_s, decision)
        else:
            self._drop_or_probe(replica, replicas, now_s, decision)
        return True

    def _choose(
        self,
        replica: ReplicaState,
        lanes: list[Lane],
        wait_s: float,
        now_s: float,
        needed_per_s: float,
        limit: int,
    ) -> tuple[Choice, list[Lane]]:
        """The best batch, and of which lanes: long rows are left out where that answers more in time."""
        best, best_lanes = choose(Outlook.over(lanes), replica.times, wait_s, now_s, needed_per_s, limit), lanes
        for longest in sorted({lane.length_class for lane in lanes})[:0:-1]:
            if best.keeps_up and not best.drop:
                break
            shorter = [lane for lane in lanes if lane.length_class < longest]
            choice = choose(Outlook.over(shorter), replica.times, wait_s, now_s, needed_per_s, limit)
            if choice.per_s > best.per_s * WORTH_LEAVING:
                best, best_lanes = choice, shorter
        return best, best_lanes

    def _needed_per_s(self, replica: ReplicaState, replicas: list[ReplicaState], lanes: list[Lane]) -> float:
        """This replica's share of what comes, by what each can do."""
        if len(replicas) == 1 and replica.capacity_per_s:
            return self._rate.per_s
        slo_s = self._main_slo_s(lanes)
        for each in replicas:
            if not each.capacity_per_s:
                each.capacity_per_s = each.rows_per_s(slo_s)
        total = sum(each.capacity_per_s for each in replicas)
        return self._rate.per_s * replica.capacity_per_s / total if total else 0.0

    def _short_until_s(
        self, replica: ReplicaState, size: int, row_bytes: float, needed_per_s: float, first_due_s: float
    ) -> float:
        """Near capacity, until when a batch of all that waits is too small to leave; in the past if it is not."""
        times = replica.times
        if size >= WAITS_BELOW * needed_per_s * times.mean_s(size, size * row_bytes):
            return 0.0
        if size >= WORTH_TIMES * self._rate.per_s * times.fixed_s:
            return 0.0  # what comes while it waits would not make up for the wait
        # A rate may be of clients that wait for this answer, or of before a pause. Then nobody comes, and a deadline
        # that is seconds away would be waited for in vain.
        paused_s = max([lane.works[-1].arrival_s for lane in self.queue.lanes()]) + MAX_GAPS / self._rate.per_s
        return min(paused_s, first_due_s - times.slow_s(size + 1, (size + 1) * row_bytes) - TIMER_LATE_S)

    def _share(self, replica: ReplicaState, replicas: list[ReplicaState], size: int, row_bytes: float) -> int:
        """How many of those that wait go to this replica where others idle. No batch is mostly its fixed time."""
        idle = sum(not other.in_flight for other in replicas)
        if idle <= 1 or replica.in_flight:
            return size
        times = replica.times
        per_row_s = times.per_row_s + times.per_byte_s * row_bytes
        worth = times.fixed_s / per_row_s if per_row_s > 0 else size
        return min(size, max(-(-size // idle), int(worth) + 1))

    def _delayed_until_s(self, replica: ReplicaState, waiting: int, limit: int, now_s: float) -> float:
        """Until when a batch that is not full waits for more: as its settings say, or for those who will ask again."""
        until_s = 0.0
        if not replica.in_flight:
            until_s = self._returns.until_s(replica, waiting, limit, self.queue, now_s)
        if self._delay_s:
            until_s = max(until_s, self.queue.oldest_arrival_s() + self._delay_s)
        return until_s

    def _main_slo_s(self, lanes: list[Lane]) -> float:
        """The SLO of the lane that most of what waits is in; the smallest of all where nothing does."""
        if len(lanes) == 1:
            return lanes[0].slo_s
        return max(lanes, key=lambda lane: len(lane.works)).slo_s if lanes else self.slo_s

    def _drop_or_probe(
        self, replica: ReplicaState, replicas: list[ReplicaState], now_s: float, decision: Decision
    ) -> None:
        """The replica can meet nothing that waits: drop what no other can either, and see whether it still is slow."""
        lanes = self.queue.lanes()
        slo_s = max(lane.slo_s for lane in lanes)
        alone_s, least_s = (
            min(each.times.mean_s(1) * each.times.ratios(1)[0] for each in some) for some in ([replica], replicas)
        )
        if least_s >= slo_s:
            # All are too slow for any query: what waits has nothing to lose.
            taken = self.queue.take_newest(lanes)
            self._send(replica, taken, now_s, decision)
            return
        decision.late += self.queue.take_due_before(now_s + least_s)
        every_s = max(PROBE_EVERY_S, PROBE_TIMES * replica.times.mean_s(1))
        if not self.queue.length or now_s < replica.probed_s + every_s:
            return
        replica.probed_s = now_s
        if alone_s < slo_s:
            # It is not slow: these rows are taken to be too long. One of them has nothing to lose, and tells.
            self._send(replica, self.queue.take_newest(self.queue.lanes()), now_s, decision)
            return
        row = self.queue.lanes()[0].works[-1].row
        copy = Work(row, NOBODY, now_s, slo_s, now_s + slo_s, now_s + slo_s, row)
        self._send(replica, Taken([copy], []), now_s, decision)

    def _send_background(self, now_s: float, decision: Decision) -> None:
        """No prediction waits: do work of the background, as far as a prediction that comes meanwhile is still met."""
        self._rate.look(self.queue.arrivals, now_s, self.slo_s)
        for replica in self.replicas.values():
            if replica.in_flight or replica.is_draining or not self.queue.background:
                continue
            times, row_bytes = replica.times, self.queue.background_row_bytes
            spare_s = BACKGROUND_SHARE * self.slo_s - times.slow_s(1, row_bytes)
            if self._rate.per_s * times.mean_s(1) < QUIET_ARRIVALS:
                spare_s = max(spare_s, self.slo_s / 2, times.slow_s(1, row_bytes))
            size = min(replica.limit, int(times.rows_within(spare_s, row_bytes)))
            if size:
                self._send(replica, self.queue.take_background(size), now_s, decision)
            else:
                _wake_at(decision, now_s + self.slo_s)

    def _ride_along(
        self, replica: ReplicaState, taken: Taken, first_due_s: float, now_s: float, decision: Decision
    ) -> None:
        """Add work of the background to a batch of all predictions that wait, as far as none of these is late by it."""
        size = len(taken.batch)
        more = min(int(size * RIDE_SHARE), replica.limit - size)
        size_bytes = 0.0
        if self.queue.varies:
            size_bytes = sum([len(work.row) for work in taken.batch]) + more * self.queue.background_row_bytes
        slow_s = replica.times.slow_s(size + more, size_bytes)
        if more > 0 and now_s + replica.rest_s(now_s) + slow_s <= first_due_s:
            riders = self.queue.take_background(more)
            taken.batch += riders.batch
            decision.late += riders.dropped

    def _sort_out(self, taken: Taken, met_s: float, decision: Decision) -> None:
        """Tell those that could not be met from those that made room. ``met_s``: when one alone would be done."""
        for work in taken.dropped:
            (decision.late if work.due_s < met_s else decision.shed).append(work)
        taken.dropped = []

    def _send(self, replica: ReplicaState, taken: Taken, now_s: float, decision: Decision) -> None:
        decision.late += taken.dropped
        works = taken.batch
        if not works:
            return
        self._next_id += 1
        size = len(works)
        size_bytes = sum([len(work.row) for work in works]) if self.queue.varies else 0
        expected_s = replica.times.mean_s(size, size_bytes)
        was_full = replica.controller is not None and size >= replica.controller.limit
        batch = Batch(self._next_id, works, now_s, expected_s, size_bytes, was_full, expected_s < SHORT_S)
        replica.in_flight[batch.id] = batch
        decision.batches.append((replica, batch))


def _wake_at(decision: Decision, at_s: float) -> None:
    if decision.wake_s is None or at_s < decision.wake_s:
        decision.wake_s = at_s
