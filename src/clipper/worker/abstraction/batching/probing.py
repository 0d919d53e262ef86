"""Probes replicas that would get no query by their learned times.

Nothing is learned from a replica that gets no batch, so a wrong time would last for ever: a slow first batch would
silence a version. Two rules prevent that, whatever was learned:

- **A query that is late on arrival is sent.** If no replica is fast enough even for a query that has just come, the
  newest query has nothing to lose, and goes to each replica that idles.
- **A query that is given up goes to a replica that has idled for ``PROBE_EVERY_S``.** This rule looks at the decision
  and not at its reason, so it holds for every controller. A replica that is slower than another waits for
  ``PROBE_TIMES`` of its own batches if these take longer: probes cost it a tenth of its time at most.

On an accelerator that a quicker version shares, probes take time from that version's queries. There a replica waits for
``SHARED_TIMES`` of its own batches, so probes cost a hundredth of the time.

So while queries are given up, a version whose batches come back is sent a batch within a second.
"""

from clipper.worker.abstraction.batching.deadline_queue import Lane, Taken
from clipper.worker.abstraction.batching.decision import Decision
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.work import NOBODY, Work

PROBE_EVERY_S = 1.0
PROBE_TIMES, SHARED_TIMES = 10.0, 100.0


def alone_s(replicas: list[ReplicaState]) -> float:
    """Return the time that a quick batch of one row takes on the fastest of these replicas."""
    return min([each.times.mean_s(1) * each.times.ratios(1)[0] for each in replicas])


def fresh_s(lanes: list[Lane]) -> float:
    """Return the time that the newest queries had on arrival: their SLO without the worker's own share of it."""
    newest = [lane.works[-1] for lane in lanes]
    return max([min(work.slo_s, work.due_s - work.arrival_s) for work in newest])


def probe_every_s(replica: ReplicaState) -> float:
    """Return the time between two probes of a replica that has faster replicas or versions beside it."""
    times = SHARED_TIMES if replica.has_quicker_beside else PROBE_TIMES
    return max(PROBE_EVERY_S, times * replica.times.mean_s(1))


def may_try(replica: ReplicaState, now_s: float) -> bool:
    """Whether a replica may get a query to learn its speed: no quicker version is beside it, or a probe is due."""
    return not replica.has_quicker_beside or now_s >= replica.asked_s + probe_every_s(replica)


def unasked(replicas: list[ReplicaState], now_s: float) -> list[ReplicaState]:
    """Return the replicas that have idled for long enough to be probed. ``replicas``: fastest first."""
    return [
        each
        for number, each in enumerate(replicas)
        if not each.in_flight
        and now_s >= each.asked_s + (probe_every_s(each) if number or each.devices else PROBE_EVERY_S)
    ]


def given_up(decision: Decision, now_s: float) -> Taken:
    """Take the newest query that is not over from those that a decision gives up, if there is any.

    If its client has gone, the query stays in the decision and the replica gets a copy.
    """
    newest, its = None, decision.late
    for works in (decision.late, decision.shed):
        for work in works:
            if work.due_s >= now_s and (newest is None or work.due_s > newest.due_s):
                newest, its = work, works
    if newest is None:
        return Taken([], [])
    if not newest.is_wanted:
        return copy_of(newest, now_s)
    its.remove(newest)
    return Taken([newest], [])


def copy_of(work: Work, now_s: float) -> Taken:
    """Return a batch of a copy of this row, for which no query waits."""
    due_s = now_s + work.slo_s
    return Taken([Work(work.row, NOBODY, now_s, work.slo_s, due_s, due_s, work.row)], [])
