"""Reads the counts of applications and versions, a few in a turn of the loop: a thousand take a while."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clipper.control.messages import GetStatistics
from clipper.control.statistics import NO_MARK, ApplicationStatistics, ReplicaStatistics, VersionStatistics
from clipper.values.types import ModelId
from clipper.worker.abstraction.predictor import Predictor
from clipper.worker.selection.application import Application
from clipper.worker.selection.description import count, mark

# Applications, and versions, that are read in a turn of the loop: some 20 us each.
READ_AT_ONCE = 50
# The most readings in a reply to a request with ``known``. The caller decodes them in a millisecond.
MOST_READINGS = 100


@dataclass(slots=True)
class Readings:
    """The readings of a reply: see ``control.statistics.WorkerStatistics``."""

    applications: list[ApplicationStatistics] = field(default_factory=list)
    versions: list[VersionStatistics] = field(default_factory=list)
    replicas: list[ReplicaStatistics] = field(default_factory=list)
    gone_applications: list[str] = field(default_factory=list)
    gone_versions: list[ModelId] = field(default_factory=list)
    looked: int | None = None


async def read(asked: GetStatistics, applications: Mapping[str, Application], predictor: Predictor) -> Readings:
    """Return the readings that the request asks for. The loop answers queries meanwhile."""
    names = tuple(applications) if asked.applications is None else asked.applications
    ids = tuple(queue.model for queue in predictor.queues()) if asked.versions is None else asked.versions
    of_applications, of_versions = asked.marks or asked.known or ((), ())
    found, has_details = Readings(), asked.marks is not None
    for place in range(max(len(names), len(ids))):
        if place < len(names):
            application, known = applications.get(names[place]), _at(of_applications, place)
            if application is not None:
                if known != mark(application):
                    found.applications.append(count(application, has_details=has_details))
            elif known != NO_MARK:
                found.gone_applications.append(names[place])
        if place < len(ids):
            queue, known = predictor.find(ids[place].name, ids[place].version), _at(of_versions, place)
            if queue is not None:
                if known != queue.mark():
                    found.versions.append(queue.statistics(with_batches=asked.batches))
                    if not has_details:
                        found.replicas += queue.replica_statistics()
            elif known != NO_MARK:
                found.gone_versions.append(ids[place])
        if asked.known is not None and len(found.applications) + len(found.versions) >= MOST_READINGS:
            found.looked = place + 1
            break
        if place % READ_AT_ONCE == READ_AT_ONCE - 1:
            await asyncio.sleep(0)
    return found


def _at(marks: Sequence[int], place: int) -> int:
    return marks[place] if place < len(marks) else NO_MARK
