"""What all workers have counted together. It never falls, whatever becomes of the workers."""

import re
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from functools import lru_cache
from sys import intern
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from clipper.control.statistics import ApplicationStatistics, ReplicaStatistics, VersionStatistics
from clipper.supervisor.metrics.sums import counted, has_fallen, negative, total

# ``digits:2#1.g7``: replica 1 of digits:2, its seventh process.
_PROCESS_ID = re.compile(r"(?P<replica>.+#\d+)\.g(?P<generation>\d+)")

# Shared, since workers have hundreds of thousands of connections together.
_STATES: dict[str, dict[str, int]] = {}

_encode = msgspec.msgpack.Encoder().encode

K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Struct)


class Link(Struct, frozen=True, array_like=True):
    """Workers' connections to a replica, by its name, which it keeps over restarts.
    ``batch_limit``: the smallest; None if no worker tells. ``states``: how many connections are in each state."""

    name: str
    model: str
    version: str
    batches: int
    in_flight: int
    batch_limit: int | None
    states: dict[str, int]


class Totals(Generic[K, S]):
    """Sums over workers of one kind of thing, such as applications, each by its key. The counts of a worker that has
    ended are carried on. Those of a worker that another supervisor started begin with its first statistics here: all
    begin at 0 together, as those of a process that was restarted."""

    def __init__(self, kind: type[S], has_counted: Callable[[S], bool]) -> None:
        """``has_counted``: whether a count is not 0. Of what has not, nothing need be kept."""
        self._has_counted = has_counted
        # By the worker's instance, what it said last, as bytes: of 64 workers with a thousand models each that is a
        # third of what the structs would take.
        self._last: dict[int, dict[K, bytes]] = {}
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._carried: dict[K, S] = {}
        self._identities: dict[K, object] = {}

    def take(self, instance: int, is_adopted: bool, things: Mapping[K, S]) -> None:
        """Take what a worker says now. ``is_adopted``: another supervisor started the worker."""
        last = self._last.setdefault(instance, {})
        for key, now in things.items():
            if key not in self._identities:
                continue
            known, said = last.get(key), _encode(now)
            if known is None:
                if self._has_counted(now):
                    if is_adopted:
                        self._carry(key, negative(now))
                elif not is_adopted:
                    continue
            elif known != said and has_fallen(before := self._decode(known), now):
                self._carry(key, counted(before))
            last[key] = said

    def keep_workers(self, instances: Container[int]) -> None:
        """Carry on what workers have counted that have ended."""
        for instance in [one for one in self._last if one not in instances]:
            for key, last in self._last.pop(instance).items():
                self._carry(key, counted(self._decode(last)))

    def keep_things(self, identities: Mapping[K, object]) -> None:
        """Forget all else. ``identities`` tell a thing from an earlier one of the same key."""
        gone = [key for key, one in self._identities.items() if key not in identities or identities[key] != one]
        for key in gone:
            self._carried.pop(key, None)
            for last in self._last.values():
                last.pop(key, None)
        self._identities = dict(identities)

    def total(self, key: K, present: Mapping[int, Mapping[K, S]]) -> S | None:
        """The sum over all workers; None if nobody has counted anything, and no worker tells of it.
        ``present``: what workers say now, by instance, which has been taken. Other workers have not answered."""
        parts = [things[key] for things in present.values() if key in things]
        silent = (last[key] for instance, last in self._last.items() if instance not in present and key in last)
        parts += (counted(self._decode(last)) for last in silent)
        if key in self._carried:
            parts.append(self._carried[key])
        return total(parts) if parts else None

    def _carry(self, key: K, counts: S) -> None:
        known = self._carried.get(key)
        self._carried[key] = counts if known is None else total([known, counts])


def application_has_counted(one: ApplicationStatistics) -> bool:
    of = one.selection
    has_learned = of is not None and bool(
        of.models or of.feedback or of.answers_scored or of.policy_errors or of.stages or any(of.confidence.counts)
    )
    return has_learned or bool(one.queries or one.defaults or one.errors or one.slo_misses or any(one.latency_s.counts))


def version_has_counted(one: VersionStatistics) -> bool:
    results = one.outputs or one.model_errors or one.rejected or one.expired
    looked_up = one.cache_hits or one.cache_misses or one.cache_joins
    batches = any(one.queue_wait_s.counts) or any(one.batch_size.counts) or any(one.batch_latency_s.counts)
    return bool(results or looked_up or batches)


def links(replicas: Iterable[ReplicaStatistics]) -> dict[str, Link]:
    """A worker's connections by the replicas' names: a draining predecessor must not share its series."""
    newest: dict[str, tuple[int, Link]] = {}
    for one in replicas:
        name, generation = _name_and_generation(one.id)
        if name not in newest or newest[name][0] <= generation:
            of, state = (intern(one.model), intern(one.version)), _STATES.setdefault(one.state, {one.state: 1})
            newest[name] = generation, Link(name, *of, one.batches, one.in_flight, one.batch_limit, state)
    return {name: link for name, (_, link) in newest.items()}


def replica_name(replica_id: str) -> str:
    """A replica's name without the number of its process, so that a restart does not begin new series."""
    return _name_and_generation(replica_id)[0]


# As many replicas as a server may have, and some that were restarted.
@lru_cache(maxsize=16_384)
def _name_and_generation(replica_id: str) -> tuple[str, int]:
    match = _PROCESS_ID.fullmatch(replica_id)
    return (match["replica"], int(match["generation"])) if match else (replica_id, 0)
