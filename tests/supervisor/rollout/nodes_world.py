"""A world whose workers are on nodes of a cluster, which are lost, come back and are cut off."""

from dataclasses import dataclass

from clipper.supervisor.rollout.workers import place_workers
from tests.supervisor.rollout.fake_processes import FakeWorker
from tests.supervisor.rollout.world import World

PER_NODE = 2
NODES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
# Until a worker that does not answer counts as lost: the time between checks, and that for an answer.
LOST_AFTER_S = 15.0


@dataclass
class Node:
    address: str
    is_up: bool = True


class NodesWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(address) for address in NODES]
        self.workers = []
        self.follow_nodes()

    def follow_nodes(self) -> None:
        """The supervisor hears from Ray which nodes are up."""
        up = [node.address for node in self.nodes if node.is_up]
        placed = place_workers(up, PER_NODE, {one.index: one.node for one in self.workers})
        self.workers = [one for one in self.workers if one.index in placed]
        known = {one.index for one in self.workers}
        self.workers += [self._new_worker(index, node) for index, node in placed.items() if index not in known]
        if newest := max(
            (one.newest for one in self.workers if one.newest), key=lambda one: one.generation, default=None
        ):
            for one in self.workers:
                one.newest = newest
        self.workers.sort(key=lambda one: one.index)

    def lose_node(self, number: int) -> None:
        """All that runs there ends. Of the last node that is up nothing is lost: nobody would tell the next workers."""
        node = self.nodes[number]
        if [one for one in self.nodes if one.is_up] != [node]:
            node.is_up = False
            for position, worker in enumerate(self.workers):
                if worker.node == node.address:
                    worker.cut_since_s = None
                    worker.phase = "ready" if worker.phase == "lost" else worker.phase
                    self.kill_worker(position)

    def cut(self, position: int) -> None:
        """The supervisor cannot reach a worker any more. Its clients can, and it goes on."""
        worker = self.workers[position]
        if worker.phase == "ready" and worker.cut_since_s is None and worker.hangs_since_s is None:
            worker.cut_since_s = self.now_s

    def heal(self, position: int) -> None:
        worker = self.workers[position]
        worker.cut_since_s = None
        if worker.phase == "lost":
            worker.phase = "ready"
            worker.send()

    def advance(self, to_s: float) -> None:
        super().advance(to_s)
        for worker in self.workers:
            since_s = worker.cut_since_s
            if worker.phase == "ready" and since_s is not None and self.now_s - since_s > LOST_AFTER_S:
                self._notice(worker)

    def _notice(self, worker: FakeWorker) -> None:
        # It goes on by what it was told last.
        worker.phase, worker.generation, worker.sent = "lost", None, None
        worker.unlinked, worker.undrained = {}, ()
        worker.inbox.clear()
        worker.replies.clear()

    def settle(self, for_s: float) -> None:
        for position, _ in enumerate(self.workers):
            self.heal(position)
        for node in self.nodes:
            node.is_up = True
        self.follow_nodes()
        super().settle(for_s)
