"""Decides for one version when a batch leaves, with which queries, and to which replica.

The shell, ``abstraction.model_queue``, reports events and carries out decisions. Facts in: the queue, the replicas with
their service times, the time. Decisions out: batches, drops, and when to decide again.
"""

from bisect import bisect_left
from collections.abc import Collection

from clipper.worker.abstraction.batching.arrival_rate import ArrivalRate
from clipper.worker.abstraction.batching.background import riders, rows_alone
from clipper.worker.abstraction.batching.controller import Controller
from clipper.worker.abstraction.batching.deadline_queue import MAX_DUE, DeadlineQueue, Lane, Taken, main_slo_s
from clipper.worker.abstraction.batching.decision import Decision, wake_at
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.goodput import Choice, Outlook, choose
from clipper.worker.abstraction.batching.nearness import near_until_s
from clipper.worker.abstraction.batching.probing import alone_s, copy_of, fresh_s, probe_every_s, take_given_up, unasked
from clipper.worker.abstraction.batching.replica_state import SHORT_S, ReplicaState
from clipper.worker.abstraction.batching.returns import LEAST_FIXED_S, Returns
from clipper.worker.abstraction.batching.service_times import ServiceTimes
from clipper.worker.abstraction.batching.small_batches import TIMER_LATE_S, until_larger_s
from clipper.worker.abstraction.batching.suspects import Suspects
from clipper.worker.abstraction.work import NOBODY, Work

# Short batches come thousands of times a second: after the first 64, the scheduler learns from every eighth, and from
# each that follows a slow batch, so that it notices a change of speed. Whether a batch counts must not depend on its
# own time: if all slow batches counted, but only an eighth of the others, a few stalls would make short batches look
# long.
LEARNED_BATCHES, LEARNED_EVERY = 64, 8
# Two batches hide the round trip to a replica; a third would only wait inside the replica, bound to it.
MAX_IN_FLIGHT = 2
# With this many rows the fixed cost of a short batch, some 0.1 ms in the worker and the container, is small per row.
ENOUGH = 16
# A short batch waits for more queries for at most this time and this share of the SLO. If many models share the queries
# and each gets few, waiting saves batches: exp3 over five models answers a sixth more.
MAX_SHORT_WAIT_S = 0.002
MAX_SHORT_WAIT_SHARE = 0.1
# Near the replicas' capacity, a batch that would answer fewer queries a second than arrive waits for more, as long as
# its deadlines allow. Below that load an idle replica is no loss, and a query leaves at once.
NEAR_CAPACITY = 0.9
# Long rows are left out of a batch if that multiplies the queries answered in time per second by at least this.
WORTH_LEAVING = 1.05
# A replica that is slower than the fastest by this factor leaves to it the queries that it cannot answer in time.
SLOWER_TIMES = 1.2

# Under a controller, the service time counts as at most this share of the SLO when lateness is decided. So a version
# whose batches all take longer than the SLO still gets fresh queries, and its recovery is noticed.
MAX_RESERVED_SHARE = 0.8


class Scheduler:
    """The queue and the replicas of one version.

    Each work that ``push`` accepts leaves exactly once: in a batch that ``finished`` or ``lose_replica`` returns, as
    ``late`` or ``shed`` of a decision, or as expired by a later ``push``. Lost work may be pushed back, and then leaves
    again.
    """

    def __init__(self, max_length: int, max_bytes: int, delay_s: float, flow: Flow) -> None:
        self.queue = DeadlineQueue(max_length, max_bytes)
        self.suspects = Suspects(self.queue, max_length, max_bytes)
        self.replicas: dict[str, ReplicaState] = {}
        self._delay_s = delay_s
        self._flow = flow
        self._next_id = 0
        self._rate = ArrivalRate()
        self._returns = Returns()
        # Whether some replicas drain; and whether some of the others are on this worker's node and others are not.
        self._are_draining = self._is_mixed = False
        self.set_slo(1.0)

    # -- replicas --------------------------------------------------------------------------------------

    def add_replica(
        self,
        replica_id: str,
        max_batch: int,
        controller: Controller | None = None,
        *,
        is_fixed: bool = False,
        is_far: bool = False,
    ) -> ReplicaState:
        """Add a replica. It is assumed to be as fast as the fastest other until its own batches show its speed.

        Args:
            max_batch: the largest batch that it takes, in rows.
            controller: sets a limit below that; None for policies without a controller.
            is_fixed: allow batches of ``max_batch`` from the first on.
        """
        times = ServiceTimes()
        known = [other.times for other in self.replicas.values() if other.times.is_known]
        if known:
            times.adopt(min(known, key=lambda other: other.mean_s(1)))
        if is_fixed:
            times.largest = max_batch
        replica = self.replicas[replica_id] = ReplicaState(replica_id, max_batch, controller, times, is_far)
        self._look_at_replicas()
        return replica

    def drain_replica(self, replica_id: str) -> None:
        """Send it no more work; its batches in flight are still awaited."""
        self.replicas[replica_id].is_draining = True
        self._look_at_replicas()

    def resume_replica(self, replica_id: str) -> None:
        """Stop draining: send it work again."""
        self.replicas[replica_id].is_draining = False
        self._look_at_replicas()

    def lose_replica(self, replica_id: str) -> list[Work]:
        """Remove a replica. Return its work in flight, most urgent first, to be pushed back or failed."""
        replica = self.replicas.pop(replica_id)
        self._look_at_replicas()
        for batch in replica.in_flight.values():
            self.suspects.ended(batch.source)
        return [work for batch in replica.in_flight.values() for work in batch.works if work.waiters is not NOBODY]

    def _look_at_replicas(self) -> None:
        working = [replica for replica in self.replicas.values() if not replica.is_draining]
        self._are_draining = len(working) < len(self.replicas)
        self._is_mixed = len({replica.is_far for replica in working}) > 1

    def set_slo(self, slo_s: float) -> None:
        """Set the smallest SLO of the applications that query this version: for controllers and short waits."""
        self.slo_s = slo_s
        self._short_wait_s = min(MAX_SHORT_WAIT_S, slo_s * MAX_SHORT_WAIT_SHARE)
        for replica in self.replicas.values():
            if replica.controller is not None:
                replica.controller.set_budget(slo_s * replica.controller.share_of_slo)

    # -- queries ---------------------------------------------------------------------------------------

    def push(self, work: Work, now_s: float) -> tuple[bool, list[Work]]:
        """Queue new work. Return whether there was room, and the work that has left to make room."""
        suspects = self.suspects
        if suspects.push(work) if suspects.name_of(work) else self.queue.push(work):
            return True, []
        expired = suspects.queue_of(work).make_room(now_s)
        return bool(expired) and self.push(work, now_s)[0], expired

    def push_back(self, works: list[Work]) -> None:
        """Queue work again, because its replica was lost or it failed beside other inputs."""
        self.suspects.push_back(works)

    @property
    def has_work(self) -> bool:
        return bool(self.queue.length or self.queue.background or (self.suspects.by_name and self.suspects.length))

    def finished(
        self, replica: ReplicaState, batch_id: int, now_s: float, failed: Collection[int] = ()
    ) -> tuple[Batch, float] | None:
        """Learn from a batch that came back. Return it with its service time in seconds, or None if it is unknown.

        ``failed`` are the rows for which the model failed.
        """
        batch = replica.in_flight.pop(batch_id, None)
        if batch is None:
            return None
        # A batch that was sent behind another began when the other ended.
        began_s = batch.sent_s if batch.sent_s > replica.last_done_s else replica.last_done_s
        service_s = now_s - began_s
        size, times = len(batch.works), replica.times
        if failed or batch.source or self.suspects.by_name:
            self.suspects.answered(batch.source, batch.works, failed, service_s)
            if failed and size > 1:
                # The model was called more than once, to find the bad rows: nothing is learned from that time.
                replica.last_done_s, replica.last_size, replica.last_left = now_s, size, self.queue.length
                return batch, service_s
        is_faster = 2 * service_s < batch.expected_s and size > 0 and times.is_known
        if is_faster and (batch.is_probe or batch.expected_s > main_slo_s(self.queue.lanes(), self.slo_s)):
            # The replica was so slow that it is only probed now and then: one fast batch is enough to believe it again.
            times.rescale(service_s / batch.expected_s)
        replica.batches += 1
        follows_slow, replica.last_was_slow = replica.last_was_slow, service_s >= SHORT_S
        if replica.batches < LEARNED_BATCHES or follows_slow or not replica.batches % LEARNED_EVERY:
            times.record(size, batch.size_bytes, service_s)
            replica.capacity_per_s = 0.0
        replica.last_done_s, replica.last_size, replica.last_left = now_s, size, self.queue.length
        if replica.controller is not None:
            replica.controller.record(size, service_s, batch.was_full)
        if service_s >= LEAST_FIXED_S:
            self._returns.answered(size, self.queue.arrivals, now_s, service_s)
        return batch, service_s

    # -- decisions -------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether queries come one at a time, so that a new one can leave without waiting for the rest of the turn.

        False if batches take long: queries that came in the same turn would have to wait for this one's batch.
        """
        if self.queue.length != 1 or self._flow.has_short_batches:
            return False
        for replica in self.replicas.values():
            if replica.in_flight or replica.last_size != 1 or replica.times.one_row_s >= SHORT_S:
                if self._is_mixed and replica.is_far:
                    continue
                return False
        return True

    def flow_wait_until_s(self) -> float:
        """Return until when a short batch of the waiting queries is held back at most, because more are expected.

        A past time if it is not held back.
        """
        waiting = self.queue.length
        if not waiting or waiting >= ENOUGH:
            return 0.0
        for replica in self.replicas.values():
            if replica.times.one_row_s >= SHORT_S or waiting >= replica.limit:
                return 0.0
        return self.queue.oldest_arrival_s() + self._short_wait_s

    def decide(self, now_s: float) -> Decision:
        """Give batches to idle replicas, then second batches to replicas whose first is nearly over.

        Replicas of this node come first, and the fastest. A replica of another node gets a batch if near replicas would
        be too late (``nearness``).
        """
        decision, queue = Decision([], [], []), self.queue
        self._returns.look(queue.arrivals, now_s)
        if self.suspects.by_name:
            self._send_suspects(now_s, decision)
        if not queue.length:
            if queue.background:
                self._send_background(now_s, decision)
            return decision
        replicas = list(self.replicas.values())
        if self._are_draining:
            replicas = [replica for replica in replicas if not replica.is_draining]
        if not replicas:
            decision.late += queue.expire(now_s)
            if len(decision.late) >= MAX_DUE:
                wake_at(decision, now_s)
            return decision
        if len(replicas) > 1:
            replicas.sort(key=lambda replica: replica.times.mean_s(1))
        if self._is_mixed:
            self._fill_near_first(replicas, now_s, decision)
        else:
            self._fill(replicas, replicas, now_s, decision)
        if decision.late or decision.shed:
            for replica in unasked(replicas, now_s):
                self._send(replica, take_given_up(decision, now_s), now_s, decision, is_probe=True)
            if self.suspects.by_name and not queue.length:
                self._send_suspects(now_s, decision)
        return decision

    def _fill_near_first(self, replicas: list[ReplicaState], now_s: float, decision: Decision) -> None:
        near = [replica for replica in replicas if not replica.is_far]
        if near_until_s(near, self.queue, now_s) > now_s:
            if not self._fill(near, near, now_s, decision):
                return
            until_s = near_until_s(near, self.queue, now_s)
            if until_s > now_s:
                wake_at(decision, until_s)
                return
        self._fill([*near, *(replica for replica in replicas if replica.is_far)], replicas, now_s, decision)

    def _fill(self, order: list[ReplicaState], replicas: list[ReplicaState], now_s: float, decision: Decision) -> bool:
        """Give batches to these replicas, the fastest first. Return False if the rest of the queue waits for one."""
        for in_flight in range(MAX_IN_FLIGHT):
            for replica in order:
                has_room = len(replica.in_flight) == in_flight
                if in_flight and has_room:
                    has_room = replica.may_send_ahead(now_s, will_ask_again=self._returns.are_believed)
                if has_room and (not self._give(replica, replicas, now_s, decision) or not self.queue.length):
                    # The rest of the queue waits for this replica; a slower replica must not take it.
                    return False
        return True

    def _give(self, replica: ReplicaState, replicas: list[ReplicaState], now_s: float, decision: Decision) -> bool:
        """Send a replica its next batch, if any. Return False if it waits and the others must leave the queue to it."""
        queue, times, limit = self.queue, replica.times, replica.limit
        lanes, waiting = queue.lanes(), queue.length
        if now_s >= self._rate.due_s:
            self._rate.look(queue.arrivals, now_s, main_slo_s(lanes, self.slo_s))
        size = waiting if waiting < limit else limit
        row_bytes = sum([lane.size_bytes for lane in lanes]) / waiting if queue.varies else 0.0
        first_due_s = lanes[0].works[0].due_s if len(lanes) == 1 else min(lane.works[0].due_s for lane in lanes)
        if first_due_s < now_s:
            # Work that a query with a later deadline has joined is queued again.
            due = queue.take_due_before(now_s)
            decision.late += due
            if len(due) >= MAX_DUE:
                # There may be more expired work, but other events of the loop get a turn first.
                wake_at(decision, now_s)
                return False
            return not queue.length or self._give(replica, replicas, now_s, decision)
        wait_s = replica.rest_s(now_s) if replica.in_flight else 0.0
        margin_s = replica.margin_s(self.slo_s)
        slow_s = wait_s + times.outlook(size, size * row_bytes)[2] + margin_s
        if waiting < limit and (self._delay_s or self._returns.are_believed):
            # No wait may make the most urgent query late.
            until_s = min(self._delayed_until_s(replica, waiting, limit, now_s), first_due_s - slow_s - TIMER_LATE_S)
            if until_s > now_s:
                wake_at(decision, until_s)
                return True
        if not times.is_known:
            self._send(replica, queue.take(0, size, lanes), now_s, decision)
            return True
        if replica.controller is None:
            is_alone = len(replicas) == 1 and replica.capacity_per_s
            needed_per_s = self._rate.per_s if is_alone else self._needed_per_s(replica, replicas, lanes)
            if now_s + slow_s <= first_due_s:
                # All are in time if they leave now. Decide whether they leave now, and how many go to this replica.
                if size < limit and needed_per_s > NEAR_CAPACITY * replica.capacity_per_s:
                    until_s = until_larger_s(
                        replica.times, lanes, size, row_bytes, self._rate.per_s, needed_per_s, first_due_s
                    )
                    if until_s > now_s:
                        wake_at(decision, until_s)
                        return False
                if len(replicas) > 1:
                    size = replica.share(replicas, size, row_bytes)
                taken = queue.take(0, size, lanes)
                if not queue.length and queue.background:
                    more = queue.take_background(riders(replica, taken.batch, queue, first_due_s, now_s))
                    taken.batch += more.batch
                    decision.late += more.dropped
                self._send(replica, taken, now_s, decision)
                return True
            choice, lanes = self._choose(replica, lanes, wait_s, now_s + margin_s, needed_per_s, limit)
            if not choice.in_time:
                choice, lanes = self._choose(replica, queue.lanes(), wait_s, now_s, needed_per_s, limit)
        else:
            # A controller only knows the limit: send the oldest queries that can still be in time.
            due_s = now_s + wait_s + min(times.mean_s(size), MAX_RESERVED_SHARE * self.slo_s)
            late = sum(bisect_left(lane.works, due_s, key=lambda work: work.due_s) for lane in lanes)
            choice = Choice(late, min(limit, waiting - late), float(waiting - late), 0.0, True)
        if choice.in_time > 0:
            taken = queue.take(choice.drop, choice.take, lanes)
            if times.mean_s(1) > SLOWER_TIMES * replicas[0].times.mean_s(1):
                # A faster replica may still answer these in time.
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
        """Choose the best batch and its lanes: leave out long rows if that answers more queries in time."""
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
        """Return this replica's share of the arrival rate, in proportion to its capacity."""
        slo_s = main_slo_s(lanes, self.slo_s)
        for each in replicas:
            if not each.capacity_per_s:
                each.capacity_per_s = each.rows_per_s(slo_s)
        return self._rate.per_s * replica.capacity_per_s / sum(each.capacity_per_s for each in replicas)

    def _delayed_until_s(self, replica: ReplicaState, waiting: int, limit: int, now_s: float) -> float:
        """Return until when a batch that is not full waits: for its configured delay, or for returning clients."""
        until_s = 0.0
        if not replica.in_flight:
            until_s = self._returns.until_s(replica, waiting, limit, self.queue, now_s)
        if self._delay_s:
            until_s = max(until_s, self.queue.oldest_arrival_s() + self._delay_s)
        return until_s

    def _drop_or_probe(
        self, replica: ReplicaState, replicas: list[ReplicaState], now_s: float, decision: Decision
    ) -> None:
        """Drop the work that is late on all replicas, and maybe probe this replica, where nothing would be in time."""
        lanes = self.queue.lanes()
        left_s, least_s = fresh_s(lanes), alone_s(replicas)
        if least_s >= left_s:
            # All replicas are too slow for any query, so a waiting query has nothing to lose.
            self._send(replica, self.queue.take_newest(lanes), now_s, decision, is_probe=True)
            return
        decision.late += self.queue.take_due_before(now_s + least_s)
        if not self.queue.length or now_s < replica.probed_s + probe_every_s(replica):
            return
        replica.probed_s = now_s
        lanes = self.queue.lanes()
        # If it is not slow for a single query, the waiting rows are too long. Try a row, which has nothing to lose.
        is_slow = alone_s([replica]) >= left_s
        taken = copy_of(lanes[0].works[-1], now_s) if is_slow else self.queue.take_newest(lanes)
        self._send(replica, taken, now_s, decision, is_probe=is_slow)

    def _send_background(self, now_s: float, decision: Decision) -> None:
        """Send background work, since no prediction waits, but so little that one that arrives can be in time."""
        self._rate.look(self.queue.arrivals, now_s, self.slo_s)
        replicas = self.replicas.values()
        for replica in sorted(replicas, key=lambda one: one.is_far) if self._is_mixed else replicas:
            if replica.in_flight or replica.is_draining or not self.queue.background:
                continue
            size = rows_alone(replica, self.queue.background_row_bytes, self._rate.per_s, self.slo_s)
            if size:
                self._send(replica, self.queue.take_background(size), now_s, decision)
            else:
                wake_at(decision, now_s + self.slo_s)

    def _send_suspects(self, now_s: float, decision: Decision) -> None:
        """Send work that is kept apart, with each suspect's work in its own batches, as far as it is their turn."""
        suspects = self.suspects
        decision.late += suspects.expire(now_s)
        for replica in self.replicas.values():
            while not replica.in_flight and not replica.is_draining and suspects.is_their_turn(now_s):
                self._send(replica, suspects.take(replica.times.mean_s(1), self.slo_s, now_s), now_s, decision)
        if suspects.length and suspects.trial_until_s > now_s:
            wake_at(decision, suspects.trial_until_s)

    def _sort_out(self, taken: Taken, met_s: float, decision: Decision) -> None:
        """Split dropped work into late and shed. Work due before ``met_s`` would be late even if it were sent alone."""
        for work in taken.dropped:
            (decision.late if work.due_s < met_s else decision.shed).append(work)
        taken.dropped = []

    def _send(
        self, replica: ReplicaState, taken: Taken, now_s: float, decision: Decision, *, is_probe: bool = False
    ) -> None:
        if taken.dropped:
            decision.late += taken.dropped
        works = taken.batch
        if not works:
            return
        self._next_id += 1
        size = len(works)
        size_bytes = sum([len(work.row) for work in works]) if self.queue.varies else 0
        expected_s, median_s, _ = replica.times.outlook(size, size_bytes)
        was_full = replica.controller is not None and size >= replica.controller.limit
        source = self.suspects.name_of(works[0]) if self.suspects.by_name else ""
        batch = Batch(
            self._next_id, works, now_s, expected_s, size_bytes, was_full, median_s < SHORT_S, is_probe, source
        )
        replica.asked_s = now_s
        replica.in_flight[batch.id] = batch
        decision.batches.append((replica, batch))
