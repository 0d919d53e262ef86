"""Decides which query workers there are on which nodes of a cluster."""

from collections.abc import Collection, Mapping

# Each worker dials each replica, and a replica on a node takes 256 callers; some are the supervisor and workers that
# start while others drain.
MAX_WORKERS_ON_NODES = 240


def place_workers(
    nodes: Collection[str], per_node: int, placed: Mapping[int, str], leaving: Collection[str] = ()
) -> dict[int, str]:
    """The workers that there are to be.

    Args:
        nodes: the addresses of the nodes that are up.
        per_node: how many workers each is to have.
        placed: the node of each worker that there is, by the worker's index.
        leaving: nodes whose workers stay for now. They get no new ones.

    Returns:
        The node of each worker, by its index. A worker whose node is up stays. A new one gets the lowest free index, so
        what comes for a lost node is counted on under its workers' names. There are at most ``MAX_WORKERS_ON_NODES``.
    """
    found: dict[int, str] = {}
    lacking = dict.fromkeys(sorted(set(nodes) - set(leaving)), per_node)
    for index, node in sorted(placed.items()):
        if node in leaving:
            found[index] = node
        elif lacking.get(node, 0):
            found[index] = node
            lacking[node] -= 1
    # All nodes get their first worker before any gets its second one, should there not be enough for all.
    waiting = [node for turn in range(per_node) for node, lacks in lacking.items() if lacks > turn]
    free = (index for index in range(MAX_WORKERS_ON_NODES) if index not in found)
    return dict(sorted((found | dict(zip(free, waiting))).items()))
