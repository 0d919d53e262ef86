"""Decides which query workers there are on which nodes, and replaces workers one at a time."""

from collections.abc import Collection, Mapping

from clipper.supervisor.rollout.instructions import DrainWorker, Instruction, StartSpare
from clipper.supervisor.rollout.snapshot_rollout import SnapshotRollout
from clipper.supervisor.rollout.view import View

# Each worker dials each replica, and a replica on a node takes 256 callers, among them the supervisor and workers that
# start while others drain.
MAX_WORKERS_ON_NODES = 240


def place_workers(
    nodes: Collection[str], per_node: int, placed: Mapping[int, str], leaving: Collection[str] = ()
) -> dict[int, str]:
    """Return the node of each worker, by the worker's index: at most ``MAX_WORKERS_ON_NODES``.

    A worker of ``placed`` whose node is up stays; a new worker gets the lowest free index. ``leaving`` are nodes whose
    workers stay for now, but that get no new workers.
    """
    found: dict[int, str] = {}
    lacking = dict.fromkeys(sorted(set(nodes) - set(leaving)), per_node)
    for index, node in sorted(placed.items()):
        if node in leaving:
            found[index] = node
        elif lacking.get(node, 0):
            found[index] = node
            lacking[node] -= 1
    # All nodes get their first worker before any gets its second, in case there are not enough for all.
    waiting = [node for turn in range(per_node) for node, lacks in lacking.items() if lacks > turn]
    free = (index for index in range(MAX_WORKERS_ON_NODES) if index not in found)
    return dict(sorted((found | dict(zip(free, waiting))).items()))


def renew_workers(view: View, snapshots: SnapshotRollout) -> list[Instruction]:
    workers = [worker for worker in view.facts.workers if worker.phase != "lost"]
    old = [worker for worker in workers if worker.is_outdated]
    spare = next((worker for worker in workers if worker.is_spare), None)
    has_spare = not any(worker.node for worker in workers)
    if old and spare is None and has_spare:
        return [StartSpare("workers with other code or settings have to be replaced")]
    if not (old or spare) or not all(snapshots.has_applied(worker, snapshots.generation) for worker in workers):
        return []
    if any(worker.phase != "ready" for worker in workers):
        return []
    if old:
        return [DrainWorker(old[0].index, "it runs with other code or settings")]
    return [] if spare is None else [DrainWorker(spare.index, "all workers are replaced")]
