"""Decides for one version when a batch leaves, with which queries, and to which replica.

The shell, ``abstraction.model_queue``, reports events and carries out decisions. Inputs: the queue, the replicas with
their service times, and the time. Outputs: batches, drops, and the time of the next decision.
"""

from collections.abc import Callable, Collection
from math import inf

from clipper.worker.abstraction.batching import small_batches
from clipper.worker.abstraction.batching.arrival_rate import ArrivalRate
from clipper.worker.abstraction.batching.background import riders, rows_alone
from clipper.worker.abstraction.batching.blocks import Blocks
from clipper.worker.abstraction.batching.controller import Controller
from clipper.worker.abstraction.batching.deadline_queue import MAX_DUE, DeadlineQueue, Taken, main_slo_s
from clipper.worker.abstraction.batching.decision import Decision, first_of, sort_out, wake_at
from clipper.worker.abstraction.batching.device import HANGS_S, Device, Sharer, first_due_s
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.goodput import Choice, choose_lanes, cut_short
from clipper.worker.abstraction.batching.nearness import near_until_s
from clipper.worker.abstraction.batching.probing import (
    alone_s,
    copy_of,
    fresh_s,
    given_up,
    may_try,
    probe_every_s,
    unasked,
)
from clipper.worker.abstraction.batching.replica_state import SHORT_S, ReplicaState
from clipper.worker.abstraction.batching.returns import LEAST_FIXED_S, Returns
from clipper.worker.abstraction.batching.service_times import ServiceTimes
from clipper.worker.abstraction.batching.suspects import Suspects
from clipper.worker.abstraction.work import NOBODY, Work

# Two batches hide the round trip to a replica; a third would only wait inside the replica, bound to it.
MAX_IN_FLIGHT = 2
# Near the replicas' capacity, a batch that would answer fewer queries a second than arrive waits for more, as long as
# its deadlines allow. Below that load an idle replica is no loss, and a query leaves at once.
NEAR_CAPACITY = 0.9
# A replica that is slower than the fastest by this factor leaves queries that it cannot answer in time to the fastest.
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
        self.blocks = Blocks()
        self.replicas: dict[str, ReplicaState] = {}
        self._delay_s, self._flow, self._next_id, self.most_batch_bytes = delay_s, flow, 0, inf
        self._rate, self._returns = ArrivalRate(), Returns()
        # Whether some replicas drain; whether some of the others share accelerators; and whether some of them are on
        # this worker's node and others are not.
        self._are_draining = self._share_devices = self._is_mixed = False
        self._only: ReplicaState | None = None  # the only replica, if its times alone decide which batches it gets
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
        devices: tuple[Device, ...] = (),
        await_turn: Callable[[], None] = lambda: None,
    ) -> ReplicaState:
        """Add a replica. It is assumed to be as fast as the fastest other until its own batches show its speed.

        Args:
            max_batch: the largest batch that it takes, in rows.
            controller: sets a limit below that; None for policies without a controller.
            is_fixed: allow batches of ``max_batch`` from the first on.
            devices: its accelerators; ``await_turn`` has ``decide`` called when others have made room there.
        """
        times = ServiceTimes()
        known = [other.times for other in self.replicas.values() if other.times.is_known]
        if known:
            times.adopt(min(known, key=lambda other: other.mean_s(1)))
        if is_fixed:
            times.largest = max_batch
        replica = self.replicas[replica_id] = ReplicaState(replica_id, max_batch, controller, times, is_far, devices)
        for device in devices:
            device.join(Sharer(replica, self.queue, self.replicas, await_turn))
        self._look_at_replicas()
        return replica

    def drain_replica(self, replica_id: str) -> None:
        """Send the replica no more work, but still await its batches in flight."""
        self.replicas[replica_id].is_draining = True
        self._look_at_replicas()

    def resume_replica(self, replica_id: str) -> None:
        """Stop draining the replica: send it work again."""
        self.replicas[replica_id].is_draining = False
        self._look_at_replicas()

    def lose_replica(self, replica_id: str) -> list[Work]:
        """Remove a replica. Return its work in flight, most urgent first, to be pushed back or failed."""
        replica = self.replicas.pop(replica_id)
        self._look_at_replicas()
        self.blocks.forget_replica(replica_id)
        for device in replica.devices:
            device.leave(replica)
        for batch in replica.in_flight.values():
            self.suspects.ended(batch.source)
        return [work for batch in replica.in_flight.values() for work in batch.works if work.waiters is not NOBODY]

    def _look_at_replicas(self) -> None:
        working = [replica for replica in self.replicas.values() if not replica.is_draining]
        self._are_draining = len(working) < len(self.replicas)
        self._share_devices = any(replica.devices for replica in working)
        self._is_mixed = len({replica.is_far for replica in working}) > 1
        only = working[0] if len(self.replicas) == len(working) == 1 and not self._delay_s else None
        self._only = None if only is None or only.controller or only.devices else only

    def set_slo(self, slo_s: float) -> None:
        """Set the smallest SLO of the applications that query this version: for controllers and short waits."""
        self.slo_s = slo_s
        self._short_wait_s = min(small_batches.MAX_SHORT_WAIT_S, slo_s * small_batches.MAX_SHORT_WAIT_SHARE)
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
        accepted, further = self.push(work, now_s) if expired else (False, [])
        return accepted, expired + further

    @property
    def has_work(self) -> bool:
        queue, suspects = self.queue, self.suspects
        return bool(queue.length or queue.background or self.blocks.waiting or (suspects.by_name and suspects.length))

    def finished(
        self, replica: ReplicaState, batch_id: int, now_s: float, failed: Collection[int] = ()
    ) -> tuple[Batch, float] | None:
        """Learn from a batch that came back. Return it with its service time in seconds, or None if it is unknown.

        ``failed`` are the rows for which the model failed.
        """
        batch = replica.in_flight.pop(batch_id, None)
        if batch is None:
            return None
        service_s = replica.service_s(batch.sent_s, now_s)
        if batch.piece is not None:
            replica.last_done_s = now_s
            batch.piece.size.learn(batch.piece.rows, service_s)
            return batch, service_s
        size, times = len(batch.works), replica.times
        if failed or batch.source or self.suspects.by_name:
            self.suspects.answered(batch.source, batch.works, failed, service_s)
        replica.last_done_s, replica.last_size, replica.last_left = now_s, size, self.queue.length
        if failed and size > 1:
            # The model was called more than once, to find the bad rows: nothing is learned from that time.
            return batch, service_s
        if 2 * service_s < batch.expected_s and size > 0 and times.is_known:
            replica.take_faster(batch, service_s, main_slo_s(self.queue.lanes(), self.slo_s))
        replica.learn(batch, service_s)
        if service_s >= LEAST_FIXED_S:
            self._returns.answered(size, self.queue.arrivals, now_s, service_s)
        return batch, service_s

    # -- decisions -------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether queries come one at a time, so that a new query can leave before the end of the loop's turn.

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
        return small_batches.short_wait_until_s(self.queue, self.replicas.values(), self._short_wait_s)

    def send_alone(self, now_s: float) -> tuple[ReplicaState, Batch] | None:
        """Give the only query to the only replica while ``is_quiet``; return None if ``decide`` has to be called.

        ``decide`` would do the same in twice the time. At low load nearly all queries leave this way.
        """
        queue, replica = self.queue, self._only
        if (
            replica is None
            or queue.background
            or self.suspects.by_name
            or now_s >= self._rate.due_s
            or self._returns.are_believed
            or self._rate.per_s > NEAR_CAPACITY * replica.capacity_per_s
        ):
            return None
        size_bytes = queue.size_bytes if queue.varies else 0
        expected_s, median_s, slow_s = replica.times.outlook(1, size_bytes)
        work = queue.take_only(now_s + slow_s + replica.margin_s(self.slo_s))
        if work is None:
            return None
        self._returns.look(queue.arrivals, now_s)
        self._next_id = id_ = self._next_id + 1
        replica.asked_s = now_s
        batch = replica.in_flight[id_] = Batch(id_, [work], now_s, expected_s, size_bytes, False, median_s < SHORT_S)
        return replica, batch

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
            if queue.background or self.blocks.waiting:
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
                self._send(replica, given_up(decision, now_s), now_s, decision, is_probe=True)
            if self.suspects.by_name and not queue.length:
                self._send_suspects(now_s, decision)
        if self._share_devices and (decision.late or decision.shed or decision.batches):
            for replica in replicas:
                replica.release_devices()
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
                if has_room and replica.devices and not all(each.admits(replica, now_s) for each in replica.devices):
                    decision.late += self.queue.expire(now_s)
                    if not self.queue.length:
                        return False
                    wake_at(decision, min(first_due_s(self.queue), now_s + HANGS_S))
                    has_room = False
                if has_room and (not self._give(replica, replicas, now_s, decision) or not self.queue.length):
                    # The rest of the queue waits for this replica; a slower replica must not take it.
                    return False
        return True

    def _give(self, replica: ReplicaState, replicas: list[ReplicaState], now_s: float, decision: Decision) -> bool:
        """Send a replica its next batch, if any. Return False if it waits and the others must leave the queue to it."""
        queue, times = self.queue, replica.times
        limit = replica.limit_beside(queue, now_s) if replica.devices else replica.limit
        lanes, waiting = queue.lanes(), queue.length
        if now_s >= self._rate.due_s:
            self._rate.look(queue.arrivals, now_s, main_slo_s(lanes, self.slo_s))
        size = waiting if waiting < limit else limit
        row_bytes = queue.size_bytes / waiting if queue.varies else 0.0
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
        wait_s, margin_s = replica.wait_s(now_s), replica.margin_s(self.slo_s)
        slow_s = wait_s + times.outlook(size, size * row_bytes)[2] + margin_s
        if waiting < limit and (self._delay_s or self._returns.are_believed):
            # It waits for returning clients, or for its configured delay, unless the most urgent query would be late.
            until_s = 0.0 if replica.in_flight else self._returns.until_s(replica, waiting, limit, queue, now_s)
            if self._delay_s:
                until_s = max(until_s, queue.oldest_arrival_s() + self._delay_s)
            until_s = min(until_s, first_due_s - slow_s - small_batches.TIMER_LATE_S)
            if until_s > now_s:
                wake_at(decision, until_s)
                return True
        if not times.is_known:
            self._send(replica, queue.take(size, lanes), now_s, decision)
            return True
        if replica.controller is None:
            is_alone = len(replicas) == 1 and replica.capacity_per_s
            share = 1.0 if is_alone else replica.capacity_share(replicas, main_slo_s(lanes, self.slo_s))
            needed_per_s = self._rate.per_s * share
            if now_s + slow_s <= first_due_s:
                # All are in time if they leave now. Decide whether they leave now, and how many go to this replica.
                if size < limit and needed_per_s > NEAR_CAPACITY * replica.capacity_per_s:
                    until_s = small_batches.until_larger_s(
                        replica.times, lanes, size, row_bytes, self._rate.per_s, needed_per_s, first_due_s
                    )
                    if until_s > now_s:
                        wake_at(decision, until_s)
                        return False
                if len(replicas) > 1:
                    size = replica.share(replicas, size, row_bytes)
                taken = queue.take(size, lanes)
                if queue.length:
                    queue.push_back(cut_short(taken.batch, lanes, times, now_s + wait_s, limit))
                elif queue.background:
                    more = queue.take_background(riders(replica, taken.batch, queue, first_due_s, now_s))
                    taken.batch += more.batch
                    decision.late += more.dropped
                self._send(replica, taken, now_s, decision)
                return True
            choice, lanes = choose_lanes(lanes, times, wait_s, now_s + margin_s, needed_per_s, limit)
            if not choice.in_time:
                choice, lanes = choose_lanes(queue.lanes(), times, wait_s, now_s, needed_per_s, limit)
        else:
            # A controller only knows the limit: send the oldest queries that can still be in time.
            due_s = now_s + wait_s + min(times.mean_s(size), MAX_RESERVED_SHARE * self.slo_s)
            choice = Choice(0, due_s, limit, max(lane.works[-1].due_s for lane in lanes) >= due_s, 0.0, True)
        if choice.in_time > 0:
            taken = queue.take(choice.take, lanes, choice.from_s)
            if replica.controller is None:  # which would not see a full batch
                queue.push_back(cut_short(taken.batch, lanes, times, now_s + wait_s, limit))
            if times.mean_s(1) > SLOWER_TIMES * replicas[0].times.mean_s(1):
                # A faster replica may still answer these in time.
                queue.push_back(taken.dropped)
                taken.dropped = []
            sort_out(decision, taken, now_s + wait_s + times.mean_s(1) * times.ratios(1)[0])
            self._send(replica, taken, now_s, decision)
        else:
            self._drop_or_probe(replica, replicas, now_s, decision)
        return True

    def _drop_or_probe(
        self, replica: ReplicaState, replicas: list[ReplicaState], now_s: float, decision: Decision
    ) -> None:
        """Drop the work that is late on all replicas, and maybe probe this replica, where nothing would be in time."""
        lanes = self.queue.lanes()
        left_s, least_s = fresh_s(lanes), alone_s(replicas)
        if least_s >= left_s and may_try(replica, now_s):
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
        """Send few enough rows of background work that a prediction that arrives meanwhile can be in time."""
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
        for replica, piece, expected_s in self.blocks.give(replicas, self._rate.per_s, self.slo_s):
            self._next_id += 1
            batch = Batch(self._next_id, [], now_s, expected_s, 0, False, False, piece=piece)
            replica.in_flight[batch.id] = batch
            decision.batches.append((replica, batch))
        if self.blocks.waiting:
            wake_at(decision, now_s + self.slo_s)

    def _send_suspects(self, now_s: float, decision: Decision) -> None:
        """Send work that is kept apart, each suspect's in batches of its own, while it is the suspects' turn."""
        suspects = self.suspects
        decision.late += suspects.expire(now_s)
        for replica in self.replicas.values():
            while not replica.in_flight and not replica.is_draining and suspects.is_their_turn(now_s):
                self._send(replica, suspects.take(replica.times.mean_s(1), self.slo_s, now_s), now_s, decision)
        if suspects.length and suspects.trial_until_s > now_s:
            wake_at(decision, suspects.trial_until_s)

    def _send(
        self, replica: ReplicaState, taken: Taken, now_s: float, decision: Decision, *, is_probe: bool = False
    ) -> None:
        decision.late += taken.dropped
        works = taken.batch
        if self.most_batch_bytes != inf:
            works = first_of(works, self.most_batch_bytes)
            self.suspects.push_back(taken.batch[len(works) :])
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
