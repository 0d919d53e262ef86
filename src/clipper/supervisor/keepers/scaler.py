"""Watches the versions that are scaled by their load, and records their target number of replicas."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean

from msgspec.structs import replace

from clipper.control.messages import GetStatistics
from clipper.control.statistics import VersionStatistics, WorkerStatistics
from clipper.settings.replicas import ReplicaRange
from clipper.settings.server import MAX_WORKERS
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.pipeline_load import PipelineMeter, asked_by_steps
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.managers.reconcile.autoscale import Autoscaler, Load, Target
from clipper.supervisor.managers.reconcile.plan import Phase
from clipper.supervisor.managers.reconcile.together import within_total
from clipper.supervisor.metrics.totals import increase, total
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId

# Assumed start time until a replica has been seen to start: that of Python and a framework.
DEFAULT_START_S = 5.0


class LoadMeter:
    """Measures the load of a version. A worker that does not answer in time is counted in the next look. ``evaluated``:
    the share of the look-ups since the workers started that the cache did not answer.
    """

    def __init__(self) -> None:
        self._before: dict[int, VersionStatistics] = {}
        self._looked_at_s: float | None = None
        self.evaluated = 1.0

    def look(
        self,
        counted: Mapping[int, VersionStatistics],
        now_s: float,
        ready: int,
        start_s: float,
        coming_per_s: float = 0.0,
    ) -> Load | None:
        """Return the load since the look before; None at the first look, and if no worker answered.

        ``counted`` has the counts of each worker that answered, by its instance: a worker that is started again has a
        new instance.
        """
        if not counted:
            return None
        found = total([increase(self._before.get(instance), now) for instance, now in counted.items()])
        # A worker that ended never answers again; of the silent workers, only as many as may be running are kept.
        silent = [each for each in self._before.items() if each[0] not in counted]
        self._before = dict(silent[-MAX_WORKERS:]) | dict(counted)
        before_s, self._looked_at_s = self._looked_at_s, now_s
        if before_s is None:
            return None
        late = found.rejected + found.expired
        # Workers of an older Clipper report only the outcomes of queries. They are being replaced.
        arrivals = found.outputs + found.model_errors + late if found.arrivals is None else found.arrivals
        self.evaluated = total(list(counted.values())).evaluated
        return Load(
            at_s=now_s,
            interval_s=now_s - before_s,
            arrivals=arrivals,
            late=late,
            wait_s=found.queue_wait_s.mean,
            service_s=found.batch_latency_s.mean,
            slo_s=inf if found.slo_s is None else found.slo_s,
            capacity_per_s=fmean(found.rows_per_s.values()) if found.rows_per_s else 0.0,
            ready=ready,
            start_s=start_s,
            coming_per_s=coming_per_s,
        )


class StartTimes:
    """The time that replicas of a version take to start, from looks at their phases."""

    def __init__(self) -> None:
        self.start_s = DEFAULT_START_S
        self._starting: dict[str, float] = {}

    def look(self, phases: Mapping[str, Phase], now_s: float) -> None:
        """Learn from the replicas' ``phases``, by id. A start that is shorter than a look's interval does not count."""
        for replica, began_s in list(self._starting.items()):
            if phases.get(replica) != "starting":
                del self._starting[replica]
                if phases.get(replica) == "ready":
                    self.start_s = now_s - began_s
        for replica, phase in phases.items():
            if phase == "starting":
                self._starting.setdefault(replica, now_s)


log = logging.getLogger(__name__)

# Often enough to notice a ramp of 20 s in its first quarter. A look takes each worker some 100 µs of processor time.
LOOK_EVERY_S = 0.5
# A fraction of a replica's start time. A worker reports within microseconds which versions are asked.
LOOK_AT_SLEEPERS_EVERY_S = 0.05
# Asks for the smallest possible reply: with marks, the worker also leaves out everything that grows with applications
# and keys.
DEMAND = GetStatistics((), (), ((), ()))


class ScaledVersion:
    """The history of a version since its range was given."""

    def __init__(self, record: VersionRecord, scaling: ReplicaRange, now_s: float, idle_after_s: float) -> None:
        self.spec = record.spec
        self.scaling = scaling
        self.meter = LoadMeter()
        self.starts = StartTimes()
        self.autoscaler = Autoscaler(scaling.min, scaling.max, record.replicas_wanted, now_s, idle_after_s)

    def is_of(self, record: VersionRecord) -> bool:
        """Whether this still holds for the version, which an operator may have woken by a rollback to it."""
        is_asleep = record.replicas_wanted == 0
        return (self.spec, self.scaling, self.autoscaler.is_asleep) == (record.spec, record.scaling, is_asleep)


@dataclass(eq=False)
class Scaler:
    """Scales versions, on the supervisor's event loop. ``_wake`` has the reconciler look at the catalog.

    A version that may have no replica falls asleep after ``_idle_after_s`` without queries.
    """

    _catalog: Catalog
    _manager: Manager
    _workers: Workers
    _wake: Callable[[], None]
    _idle_after_s: float

    def __post_init__(self) -> None:
        self._versions: dict[ModelId, ScaledVersion] = {}
        self._meters: dict[str, PipelineMeter] = {}

    def reason(self, id_: ModelId) -> str | None:
        """Return the reason for a version's number of replicas; None if its load has not been looked at."""
        version = self._versions.get(id_)
        return version.autoscaler.target.reason if version else None

    async def wake(self) -> None:
        """Wake versions that are asked."""
        if not any(version.autoscaler.is_asleep for version in self._versions.values()):
            return
        # Versions start in the order in which they were asked: see ``managers.replica``.
        replies = await self._workers.ask_all(DEMAND)
        demanded = {id_: None for _, reply in replies for id_ in reply.worker.demanded}
        if not demanded:
            return
        self._follow_catalog()  # it may have changed since the last look
        now_s = asyncio.get_running_loop().time()
        self._follow({id_: one.autoscaler.wake(now_s) for id_ in demanded if (one := self._versions.get(id_))})

    async def look(self) -> None:
        """Plan by the load since the last look."""
        self._follow_catalog()
        pipelines = self._pipelines()
        # Sleeping versions have no load to read; there may be a thousand of them.
        awake = tuple(id_ for id_, version in self._versions.items() if not version.autoscaler.is_asleep)
        if not awake and not pipelines:
            return
        applications = {
            name for pipeline, asked in pipelines.items() for name in (pipeline, *(step for step, _ in asked))
        }
        counted: defaultdict[ModelId, dict[int, VersionStatistics]] = defaultdict(dict)
        replies = [
            (instance, reply.worker)
            for instance, reply in await self._workers.ask_all(
                GetStatistics(tuple(sorted(applications)), awake, ((), ()))
            )
        ]
        for instance, worker in replies:
            for version in worker.versions:
                counted[ModelId(version.model, version.version)][instance] = version
        self._follow_catalog()  # it may have changed meanwhile
        coming = self._coming(pipelines, replies)
        targets = {
            id_: self._planned(id_, one, counted[id_], coming[id_]) for id_ in awake if (one := self._versions.get(id_))
        }
        now_s = asyncio.get_running_loop().time()
        for id_, per_s in coming.items():
            # The later steps of a pipeline start while its first steps compute.
            if per_s and (one := self._versions.get(id_)) is not None and one.autoscaler.is_asleep:
                targets[id_] = one.autoscaler.wake(now_s)
        found = {id_: target for id_, target in targets.items() if target is not None}
        self._follow(self._within_totals(pipelines, found))

    def _pipelines(self) -> dict[str, dict[tuple[str, str], ModelId]]:
        """Return the versions that each pipeline asks, if the load decides the replicas of at least one of them."""
        found = {}
        for record in self._catalog.applications.values() if self._versions else ():
            asked = asked_by_steps(record, self._catalog)
            if any(id_ in self._versions for id_ in asked.values()):
                found[record.name] = asked
        self._meters = {name: self._meters.get(name) or PipelineMeter() for name in found}
        return found

    def _coming(
        self,
        pipelines: Mapping[str, Mapping[tuple[str, str], ModelId]],
        replies: Sequence[tuple[int, WorkerStatistics]],
    ) -> defaultdict[ModelId, float]:
        """Return the rows a second that pipelines are about to ask of each version."""
        now_s, coming = asyncio.get_running_loop().time(), defaultdict[ModelId, float](float)
        evaluated = {id_: version.meter.evaluated for id_, version in self._versions.items()}
        for name, asked in pipelines.items():
            if name in self._meters:
                for id_, per_s in self._meters[name].look(name, asked, evaluated, replies, now_s).items():
                    coming[id_] += per_s
        return coming

    def _within_totals(
        self, pipelines: Mapping[str, Mapping[tuple[str, str], ModelId]], targets: dict[ModelId, Target]
    ) -> dict[ModelId, Target]:
        """Bound the targets of pipelines' versions by the total that the pipeline may have."""
        for name, asked in pipelines.items():
            record = self._catalog.applications.get(name)
            if record is None or record.max_replicas is None:
                continue
            wanted = {
                id_: targets[id_].replicas if id_ in targets else one.autoscaler.target.replicas
                for id_ in set(asked.values())
                if (one := self._versions.get(id_)) is not None
            }
            fixed = sum(
                self._catalog.versions[id_].replicas_wanted
                for id_ in set(asked.values())
                if id_ not in wanted and id_ in self._catalog.versions
            )
            now = {id_: self._catalog.versions[id_].replicas_wanted for id_ in wanted}
            got = within_total(now, wanted, record.max_replicas - fixed)
            for id_, replicas in got.items():
                if replicas != wanted[id_]:
                    reason = f"{wanted[id_]} are needed, but the models of {name} may have {record.max_replicas} in all"
                    targets[id_] = self._versions[id_].autoscaler.hold_at(replicas, reason)
        return targets

    def _follow_catalog(self) -> None:
        followed = {}
        for id_ in self._catalog.running():
            record = self._catalog.versions[id_]
            # Until its first replicas are up, their number decides when it is ready; and a version that is to become
            # current must not fall asleep before.
            if record.scaling is not None and record.state == "ready" and record.promotion is None:
                known = self._versions.get(id_)
                if known is None or not known.is_of(record):
                    now_s = asyncio.get_running_loop().time()
                    known = ScaledVersion(record, record.scaling, now_s, self._idle_after_s)
                followed[id_] = known
        self._versions = followed

    def _planned(
        self, id_: ModelId, version: ScaledVersion, counted: dict[int, VersionStatistics], coming_per_s: float
    ) -> Target | None:
        now_s = asyncio.get_running_loop().time()
        slots = self._manager.slots(id_)
        version.starts.look({slot.replica.note.id: slot.phase for slot in slots if slot.replica}, now_s)
        ready = sum(slot.phase == "ready" for slot in slots)
        load = version.meter.look(counted, now_s, ready, version.starts.start_s, coming_per_s)
        return None if load is None else version.autoscaler.plan(load)

    def _follow(self, targets: Mapping[ModelId, Target]) -> None:
        """Record new targets, all at once, since hundreds of versions may wake or fall asleep together."""
        noted = []
        for id_, target in targets.items():
            record = self._catalog.versions[id_]
            if target.replicas == record.replicas_wanted:
                continue
            log.info(
                "%(model)s:%(version)s: %(replicas)d replicas in place of %(replicas_before)d: %(reason)s",
                {
                    **id_.log_fields,
                    "replicas": target.replicas,
                    "replicas_before": record.replicas_wanted,
                    "reason": target.reason,
                },
            )
            noted.append((replace(record, replicas_wanted=target.replicas), target.reason))
        if noted:
            self._catalog.note_all(noted)
            self._wake()
