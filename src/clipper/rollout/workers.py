"""Replaces query workers with other code or settings one at a time, without losing a query.

First a spare worker comes up beside them. Then each old worker is drained and started again, as soon as all others
serve by the newest snapshot. At last the spare is drained.
"""

from clipper.rollout.instructions import DrainWorker, Instruction, StartSpare
from clipper.rollout.telling import Telling
from clipper.rollout.view import View


def renew_workers(view: View, telling: Telling) -> list[Instruction]:
    workers = view.facts.workers
    old = [worker for worker in workers if worker.is_outdated]
    spare = next((worker for worker in workers if worker.is_spare), None)
    if old and spare is None:
        return [StartSpare("workers with other code or settings have to be replaced")]
    if spare is None or not all(telling.has_applied(worker, telling.generation) for worker in workers):
        return []
    if any(worker.phase != "ready" for worker in workers):
        return []
    if old:
        return [DrainWorker(old[0].index, "it runs with other code or settings")]
    return [DrainWorker(spare.index, "all workers are replaced")]
