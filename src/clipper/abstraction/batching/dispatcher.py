"""Which replica gets which work, and when: the decisions behind one version's queue.

Replicas pull: a replica that has room takes the most urgent work, as much as its own controller allows. The shell
(``abstraction.model_queue``) tells what happened and sends what comes out.
"""

import msgspec

from clipper.abstraction.batching.controller import Controller
from clipper.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.abstraction.batching.gathering import Gathered, gather_s, may_gather
from clipper.abstraction.work import Work

# Two batches hide the round trip to a replica; a third would only wait inside it.
MAX_IN_FLIGHT = 2
# A second batch that is not full goes out early only behind a batch this short: it then hides a round trip
# of about 0.2 ms, while behind a long one it would leave with fewer queries than it could have gathered.
PREFETCH_S = 0.001
# So many rows make what a batch costs beside them, some 0.1 ms here and in the container, small for each.
ENOUGH = 16
# What a batch may take of the SLO: with two batches in flight a query can wait for two before its own, and
# something has to be left for the way through the worker.
BATCH_SHARE_OF_SLO = 0.3


class Batch(msgspec.Struct, eq=False):
    """Work on its way to a replica.

    Attributes:
        was_full: the controller's limit is what kept it from being larger.
        is_short: it takes so little that a second one behind it hides a round trip.
        is_expected: it is short, and neither has ended nor seems to hang; kept by ``ShortBatches``.
    """

    id: int
    works: list[Work]
    sent_s: float
    was_full: bool
    is_short: bool
    is_expected: bool = False


class ReplicaState:
    """What the dispatcher knows of one replica."""

    __slots__ = ("batches", "controller", "id", "in_flight", "is_draining", "last_done_s", "last_left", "last_size")

    def __init__(self, replica_id: str, controller: Controller) -> None:
        self.id = replica_id
        self.controller = controller
        self.in_flight: dict[int, Batch] = {}
        self.is_draining = False
        self.last_done_s = 0.0
        self.last_size = 0
        self.last_left = 0  # waiting when the last batch came back
        self.batches = 0


class Turn(msgspec.Struct):
    """What to do now: send ``assignments``, answer ``late`` as timed out, look again at ``wake_s``."""

    assignments: list[tuple[ReplicaState, Batch]]
    late: list[Work]
    wake_s: float | None = None


class Dispatcher:
    """One version's queue and replicas.

    Each piece of work that ``push`` accepts leaves exactly once: in a batch that ``finished`` or ``lose_replica``
    returns, in a turn's ``late``, or expired by a later ``push``. Lost work may be pushed back and leaves again.
    """

    def __init__(self, max_length: int, max_bytes: int, delay_s: float) -> None:
        self.queue = DeadlineQueue(max_length, max_bytes)
        self.replicas: dict[str, ReplicaState] = {}
        self._delay_s = delay_s
        self._next_id = 0

    def add_replica(self, replica_id: str, controller: Controller) -> ReplicaState:
        replica = self.replicas[replica_id] = ReplicaState(replica_id, controller)
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
        return [work for batch in replica.in_flight.values() for work in batch.works]

    def push(self, work: Work, now_s: float) -> tuple[bool, list[Work]]:
        """Queue new work. Returns whether there was room, and what had to be expired to find out."""
        if self.queue.push(work):
            return True, []
        expired = self.queue.expire(now_s)
        return bool(expired) and self.queue.push(work), expired

    def next_turn(self, now_s: float) -> Turn:
        """Give every idle replica a batch, the fastest first, then a second one to those that have room for it."""
        turn, queue = Turn([], []), self.queue
        if not queue.length:
            return turn
        replicas = [replica for replica in self.replicas.values() if not replica.is_draining]
        if len(replicas) > 1:
            replicas.sort(key=_row_s)
        if not replicas:
            turn.late = queue.expire(now_s)
        for in_flight in range(MAX_IN_FLIGHT):
            for replica in replicas:
                if not queue.length:
                    return turn
                if len(replica.in_flight) == in_flight and self._has_room(replica):
                    self._fill_or_wait(replica, now_s, turn)
        return turn

    def finished(self, replica: ReplicaState, batch_id: int, now_s: float) -> tuple[Batch, float] | None:
        """A batch came back, evaluated: learn from it. Returns it with its service time, None if it is unknown."""
        batch = replica.in_flight.pop(batch_id, None)
        if batch is None:
            return None
        # A batch that was sent while another was running began when that one ended.
        began_s = batch.sent_s if batch.sent_s > replica.last_done_s else replica.last_done_s
        service_s = now_s - began_s
        replica.last_done_s = now_s
        replica.last_size = size = len(batch.works)
        replica.last_left = self.queue.length
        replica.batches += 1
        replica.controller.observe(size, service_s, batch.was_full)
        return batch, service_s

    def is_quiet(self) -> bool:
        """Whether queries come one at a time: then one that has just come need not wait for others to be read.

        Not where batches take long: should more come with it after all, they would have to wait for it.
        """
        if self.queue.length != 1:
            return False
        for replica in self.replicas.values():
            if replica.in_flight or replica.last_size != 1 or replica.controller.predict_s(1) >= PREFETCH_S:
                return False
        return True

    def gains_by_more(self) -> bool:
        """Whether a few more queries would make a batch better that could leave now.

        Not where batches take long: a replica that idles then loses more than a batch costs.
        """
        waiting = self.queue.length
        for replica in self.replicas.values():
            controller = replica.controller
            if waiting >= min(ENOUGH, controller.limit) or controller.predict_s(1) >= PREFETCH_S:
                return False
        return True

    def set_slo(self, slo_s: float) -> None:
        """The smallest SLO of the applications that ask this version."""
        for replica in self.replicas.values():
            replica.controller.set_budget(slo_s * BATCH_SHARE_OF_SLO)

    def _has_room(self, replica: ReplicaState) -> bool:
        """Whether a replica with fewer than ``MAX_IN_FLIGHT`` batches may have one more."""
        if not replica.in_flight:
            return True
        if self.queue.length >= replica.controller.limit:
            return True
        return next(iter(replica.in_flight.values())).is_short

    def _fill_or_wait(self, replica: ReplicaState, now_s: float, turn: Turn) -> None:
        until_s = self._wait_until_s(replica, now_s)
        if until_s <= now_s:
            self._fill(replica, now_s, turn)
        elif turn.wake_s is None or until_s < turn.wake_s:
            turn.wake_s = until_s

    def _wait_until_s(self, replica: ReplicaState, now_s: float) -> float:
        """Until when a batch that is not full should wait for more; in the past if it should go now."""
        controller, until_s = replica.controller, 0.0
        if self.queue.length >= controller.limit:
            return until_s
        if not replica.in_flight and may_gather(controller, replica.last_size):
            until_s = self._gather_until_s(replica, now_s)
        if self._delay_s:
            until_s = max(until_s, self.queue.oldest_arrival_s() + self._delay_s)
        return until_s

    def _gather_until_s(self, replica: ReplicaState, now_s: float) -> float:
        """Until when an idle replica waits for those that it has just answered; in the past if it does not."""
        left, waiting = replica.last_left, self.queue.length
        began_s = replica.last_done_s
        if waiting > left:
            began_s = max(began_s, self.queue.oldest_arrival_s())
        gathered = Gathered(left, replica.last_size, waiting, now_s - began_s)
        return began_s + gather_s(replica.controller, gathered)

    def _fill(self, replica: ReplicaState, now_s: float, turn: Turn) -> None:
        controller = replica.controller
        works, late = self.queue.take(controller.limit, now_s, self._expected_s(replica, now_s))
        turn.late += late
        if works:
            self._next_id += 1
            size = len(works)
            is_short = controller.predict_s(size) < PREFETCH_S
            batch = Batch(self._next_id, works, now_s, size >= controller.limit, is_short)
            replica.in_flight[batch.id] = batch
            turn.assignments.append((replica, batch))

    def _expected_s(self, replica: ReplicaState, now_s: float) -> float:
        """How long until a batch sent now is answered: the rest of the one that runs counts as well.

        Without it, under more load than the replicas can take, all that is sent behind another batch comes too late.
        """
        controller, waiting = replica.controller, self.queue.length
        expected_s = controller.predict_s(waiting if waiting < controller.limit else controller.limit)
        for running in replica.in_flight.values():
            began_s = max(running.sent_s, replica.last_done_s)
            expected_s += max(0.0, controller.predict_s(len(running.works)) - (now_s - began_s))
        return expected_s


def _row_s(replica: ReplicaState) -> float:
    """One that is not known yet comes first, and so is known soon."""
    return replica.controller.predict_s(1)
