"""Query workers of another Clipper's code, or with other settings, are replaced one at a time, and no query is lost.

A spare worker comes up beside them first. Then each old one is drained and started again, once all others serve by the
newest snapshot; at last the spare is drained.
"""

from clipper.rollout.instructions import DrainWorker, Instruction, StartSpare
from clipper.rollout.telling import Telling
from clipper.rollout.view import View


def renew_workers(view: View, telling: Telling) -> list[Instruction]:
    workers = view.facts.workers
    old = [worker for worker in workers if worker.is_outdated]
    spare = next((worker for worker in workers if worker.is_spare), None)
    if old and spare is None:
        return [StartSpare("workers of another Clipper's code or with other settings are to be replaced")]
    if spare is None or not all(telling.has_applied(worker, telling.generation) for worker in workers):
        return []
    if any(worker.phase != "ready" for worker in workers):
        return []
    if old:
        return [DrainWorker(old[0].index, "another Clipper's code runs in it, or with other settings")]
    return [DrainWorker(spare.index, "all workers are replaced")]
