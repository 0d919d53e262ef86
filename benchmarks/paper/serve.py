"""Ray Serve beside Clipper: a program of Serve's own environment, driven over its standard input."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.servers import free_port
from benchmarks.paper.client import Address
from benchmarks.peers.table import APPS
from scripts.ray_cluster import RayCluster

# Serve stops its replicas in turn.
END_WITHIN_S = 120.0


class Serve:
    """One application of Ray Serve on a cluster.

    Attributes:
        address: of its proxy.
    """

    def __init__(self, cluster: RayCluster, models: Path, max_batch: int) -> None:
        """``models``: the folder of the model ``waiting``."""
        self.address: Address = ("127.0.0.1", free_port())
        program = [str(cluster.python), str(APPS / "serve_waiting.py")]
        arguments = [cluster.address, str(self.address[1]), str(models), str(max_batch)]
        self._process = subprocess.Popen(
            [*program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
        )

    def scale(self, replicas: int) -> float:
        """Have so many replicas; return the seconds until all of them run."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"%d\n" % replicas)
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "Serve's program has ended"
        return float(json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(END_WITHIN_S)
        self._process.stdout.close()


@contextmanager
def serving(cluster: RayCluster, models: Path, max_batch: int) -> Iterator[Serve]:
    application = Serve(cluster, models, max_batch)
    try:
        yield application
    finally:
        application.close()
