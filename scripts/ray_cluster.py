"""A real Ray cluster of several raylets on this machine.

As a program, ``python ray_cluster.py CPUS...``, it runs in an environment that has Ray: the first node is the head. It
writes one JSON line when the cluster is up, then carries out its input line by line, and ends the cluster with it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Ray ends a node that it empties after that, whatever runs there.
DRAINS_WITHIN_S = 600.0
# Ray gives a node 30 s to start, which a busy machine exceeds.
START_WITHIN_S = "150"
OBJECT_STORE_BYTES = 100 * 1024 * 1024


class RayCluster:
    """A cluster that this process started, by its program."""

    def __init__(self, python: Path, cpus: tuple[float, ...]) -> None:
        self.python = python
        source = Path(__file__).parents[1] / "src"
        environ = {
            **os.environ,
            "PYTHONPATH": str(source),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": START_WITHIN_S,
        }
        command = [str(python), "-I", __file__, str(source), *map(str, cpus)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        self.address: str = self._answer()

    @property
    def host(self) -> str:
        """The address of all nodes: this machine's own, because Ray takes 127.0.0.1 for that."""
        return self.address.rpartition(":")[0]

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "RAY_ADDRESS": self.address, "CLIPPER_RAY_PYTHON": str(self.python)}

    def nodes(self) -> list[str]:
        """Ray's ids of the nodes that are up."""
        return list(self._ask("nodes"))

    def node_at(self, host: str) -> str:
        """Ray's id of the node that was added at an address."""
        return str(self._ask("node at", host))

    def add(self, cpus: float, **options: Any) -> str:
        """Add a node, with further options of Ray's nodes such as ``labels`` or ``node_ip_address``; return its id."""
        return str(self._ask("add", cpus, options))

    def kill(self, node: str) -> None:
        """Kill a node's raylet, as by SIGKILL."""
        self._ask("kill", node)

    def drain(self, node: str) -> None:
        """Have Ray empty a node: it places nothing there any more, and ends the node once nothing runs there."""
        self._ask("drain", node)

    def kill_head(self) -> None:
        """Kill the head with its raylet and the cluster's state. The other nodes are left to themselves."""
        self._ask("kill head")

    def start_head(self) -> None:
        """Start a head at the address of the one that was killed; the cluster has no other node then."""
        assert self._ask("start head") == self.address

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _ask(self, *what: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        assert text, "the cluster's program has ended"
        return json.loads(text)


def actor_of(container: int) -> int:
    """The process id of the actor that started a container."""
    return int(Path(f"/proc/{container}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def running_cluster(python: Path, *cpus: float) -> Iterator[RayCluster]:
    cluster = RayCluster(python, cpus)
    try:
        yield cluster
    finally:
        cluster.close()


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints
    from ray.cluster_utils import Cluster

    def answer(value: Any) -> None:
        answers.write(json.dumps(value).encode() + b"\n")
        answers.flush()

    os.environ["PYTHONPATH"] = sys.argv[1]
    first, *others = map(float, sys.argv[2:])
    options = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": first, **options})
    try:
        nodes = [cluster.head_node, *(cluster.add_node(num_cpus=cpus, **options) for cpus in others)]
        cluster.wait_for_nodes()
        port = int(cluster.address.rpartition(":")[2])
        answer(cluster.address)
        for line in sys.stdin:
            what, *arguments = json.loads(line)
            if what == "nodes":
                answer([node.node_id for node in nodes])
            elif what == "node at":
                (there,) = (node for node in nodes if node.node_ip_address == arguments[0])
                answer(there.node_id)
            elif what == "add":
                nodes.append(cluster.add_node(num_cpus=arguments[0], **options, **arguments[1]))
                cluster.wait_for_nodes()
                answer(nodes[-1].node_id)
            elif what == "kill":
                (lost,) = (node for node in nodes if node.node_id == arguments[0])
                nodes.remove(lost)
                cluster.remove_node(lost, allow_graceful=False)
                answer(None)
            elif what == "drain":
                from ray._raylet import GcsClient
                from ray.core.generated.autoscaler_pb2 import DrainNodeReason

                reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
                deadline_ms = int((time.time() + DRAINS_WITHIN_S) * 1000)
                answer(GcsClient(address=cluster.address).drain_node(arguments[0], reason, "a test", deadline_ms))
            elif what == "kill head":
                cluster.remove_node(cluster.head_node, allow_graceful=False)
                answer(None)
            elif what == "start head":
                for lost in list(cluster.worker_nodes):  # they have ended, and their processes have not been waited for
                    cluster.remove_node(lost, allow_graceful=False)
                # One that has known another head is of no use: Ray tells them apart by an id of each.
                head = {"num_cpus": first, "gcs_server_port": port, **options}
                cluster = Cluster(initialize_head=True, head_node_args=head)
                nodes = [cluster.head_node]
                answer(cluster.address)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
