"""An open-loop run in virtual time: queries come whether or not earlier ones were answered. Nothing waits."""

import heapq
import itertools
import math
import random
from collections.abc import Sequence
from typing import Protocol

from benchmarks.batching.profiles import Profile, Query

# Before this part of the run nothing is counted: a cold start is for tests of its own.
WARM_UP = 0.2
LEAST_SLOS = 40
LEAST_STALLS = 12
# So that a model's change of speed lasts for many of its batches, also of the slow ones.
LEAST_SLOS_OF_CHANGE = 150


class Rule(Protocol):
    """Decides what leaves when. Replicas are numbered."""

    def push(self, query: Query) -> None: ...

    def decide(self, now_s: float, idle: Sequence[int]) -> tuple[list[tuple[int, list[Query]]], float]:
        """Batches for idle replicas, and when to look again if nothing happens before."""

    def finished(self, replica: int, now_s: float) -> None:
        """The replica's first batch has ended."""


def goodput(rule: Rule, profile: Profile, load: float, seed: int, queries: int, warm_up: float = WARM_UP) -> float:
    """The share of queries answered in time, at ``load`` times the replicas' capacity."""
    per_s = profile.cap_per_s() * load
    end_s = max(LEAST_SLOS * profile.slo_s, queries / per_s)
    if profile.slow_times > 1:
        end_s = max(end_s, LEAST_SLOS_OF_CHANGE * profile.slo_s)
    if profile.stall_s:
        end_s = max(end_s, LEAST_STALLS * profile.stall_every_s)
    rng = random.Random(seed)
    coming = profile.queries(per_s, end_s, random.Random(seed + 1))
    order = itertools.count()
    # A replica works through what it is sent in order.
    in_flight, free_s = [0] * len(profile.speeds), [0.0] * len(profile.speeds)
    ends: list[tuple[float, int, int, list[Query]]] = []
    query = next(coming, None)
    wake_s, from_s, good, total = math.inf, warm_up * end_s, 0, 0
    while True:
        arrival_s = math.inf if query is None else query.arrival_s
        now_s = min(arrival_s, ends[0][0] if ends else math.inf, wake_s)
        if now_s == math.inf:
            return good / total
        if ends and ends[0][0] <= now_s:
            _, _, replica, batch = heapq.heappop(ends)
            in_flight[replica] -= 1
            good += sum(each.due_s >= now_s and each.arrival_s >= from_s for each in batch)
            rule.finished(replica, now_s)
        elif query is not None and arrival_s <= now_s:
            rule.push(query)
            total += arrival_s >= from_s
            query = next(coming, None)
        batches, wake_s = rule.decide(now_s, [replica for replica, count in enumerate(in_flight) if not count])
        for replica, batch in batches:
            in_flight[replica] += 1
            began_s = max(now_s, free_s[replica])
            service_s = profile.service_s(replica, batch, began_s, end_s, rng)
            if profile.first_slos and not free_s[replica]:
                service_s = profile.first_slos * profile.slo_s
            free_s[replica] = began_s + service_s
            heapq.heappush(ends, (free_s[replica], next(order), replica, batch))
        wake_s = wake_s if wake_s > now_s else math.inf
