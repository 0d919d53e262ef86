"""Replaces query workers with other code or settings one at a time, without losing a query.

First a spare worker comes up beside them. Then each old worker is drained and started again, as soon as all others
serve by the newest snapshot. At last the spare is drained.

On the nodes of a cluster there is no spare. A balancer in front sends queries elsewhere while a node's worker is
replaced, and one of all workers is replaced at a time. One that is lost is left alone.
"""

from clipper.supervisor.rollout.instructions import DrainWorker, Instruction, StartSpare
from clipper.supervisor.rollout.snapshot_rollout import Telling
from clipper.supervisor.rollout.view import View


def renew_workers(view: View, telling: Telling) -> list[Instruction]:
    workers = [worker for worker in view.facts.workers if worker.phase != "lost"]
    old = [worker for worker in workers if worker.is_outdated]
    spare = next((worker for worker in workers if worker.is_spare), None)
    has_spare = not any(worker.node for worker in workers)
    if old and spare is None and has_spare:
        return [StartSpare("workers with other code or settings have to be replaced")]
    if not (old or spare) or not all(telling.has_applied(worker, telling.generation) for worker in workers):
        return []
    if any(worker.phase != "ready" for worker in workers):
        return []
    if old:
        return [DrainWorker(old[0].index, "it runs with other code or settings")]
    return [] if spare is None else [DrainWorker(spare.index, "all workers are replaced")]
