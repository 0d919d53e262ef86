"""Takes samples for series and problems: asks workers for their counts, and looks at processes."""

import asyncio
import time
from collections import Counter

from msgspec.structs import replace

from clipper.base.processes.proc import CPU_TICKS, PAGE_BYTES, RESIDENT_PAGES, TICKS_PER_S, stat_fields
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.history.recent import Health
from clipper.supervisor.history.sampler import STEP_S, ApplicationFacts, Facts, ModelFacts, ProcessFacts, Sampler
from clipper.supervisor.history.values import Replicas
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.workers.workers import Workers

# A slow worker gets no more time than this: then the next step begins.
ANSWER_TIMEOUT_S = STEP_S / 2


class Sampling:
    """Takes samples in a task. ``taken_at_s``: when the newest sample was taken, in seconds since 1970."""

    def __init__(self, catalog: Catalog, manager: Manager, workers: Workers) -> None:
        self.sampler = Sampler(asyncio.get_running_loop().time())
        self.health = Health()
        self.taken_at_s = time.time()
        self._catalog = catalog
        self._manager = manager
        self._workers = workers

    async def run(self) -> None:
        while True:
            await asyncio.sleep(max(self.sampler.due_s() - asyncio.get_running_loop().time(), 0.0))
            await self._take(self._facts())

    async def _take(self, facts: Facts) -> None:
        questions = {instance: self.sampler.question(instance, facts) for instance in facts.workers}
        replies = await self._workers.ask_each(questions, ANSWER_TIMEOUT_S)
        answers = {instance: reply.worker for instance, reply in replies}
        self.sampler.take(asyncio.get_running_loop().time(), facts, answers)
        self.health.look(self.sampler.recent)
        self._note_answers()
        self.taken_at_s = time.time()

    def _note_answers(self) -> None:
        """Record that a version answers inputs, if that was not known."""
        recent = self.sampler.recent
        for id_ in list(recent.versions):
            record = self._catalog.versions.get(id_)
            if record is not None and record.unanswered and recent.rows(id_).outputs:
                self._catalog.note(replace(record, unanswered=""))

    def _facts(self) -> Facts:
        catalog = self._catalog
        ready = Counter(one.slot.model_id for one in self._manager.slots() if one.phase == "ready")
        versions: dict[str, dict[str, Replicas]] = {name: {} for name in catalog.models}
        for id_, target in catalog.running().items():
            versions[id_.name][id_.version] = Replicas(ready[id_], target)
        for id_ in ready:
            versions.get(id_.name, {}).setdefault(id_.version, Replicas(ready[id_], 0))
        return Facts(
            tuple(ApplicationFacts(one.name, one.state_id, one.slo_ms) for one in catalog.applications.values()),
            tuple(ModelFacts(name, catalog.current(name), running) for name, running in versions.items()),
            frozenset(self._workers.instances()),
            tuple(filter(None, map(_process, self._workers.pids().items()))),
            frozenset(worker.instance for worker in self._workers if not worker.is_adopted),
        )


def _process(worker: tuple[int, int]) -> ProcessFacts | None:
    """Return the facts of a worker's process, by its index and pid; None if it is gone."""
    index, pid = worker
    fields = stat_fields(pid)
    if fields is None:
        return None
    cpu_s = sum(int(fields[tick]) for tick in CPU_TICKS) / TICKS_PER_S
    return ProcessFacts(index, pid, cpu_s, int(fields[RESIDENT_PAGES]) * PAGE_BYTES)
