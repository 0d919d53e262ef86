"""A query worker with a port for gRPC, and models behind it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clipper.supervisor.workers.ports import hold, port_of
from tests.serving import Serving, application, model, serving, version

SUM = "def predict(inputs):\n    return [float(row.sum()) + {} for row in inputs]\n"
UPPER = "def predict(inputs):\n    return [text.upper() for text in inputs]\n"
# Later than any deadline of a test, and within an SLO.
SLOW = "import time\ndef predict(inputs):\n    time.sleep(3)\n    return [1.0 for row in inputs]\n"
OWN = "float32[4]"


@dataclass
class RpcSystem:
    """``address``: of gRPC; ``serving`` has the rest."""

    serving: Serving
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def rpc_serving() -> Iterator[RpcSystem]:
    """As ``serving``, with a port for workers that are started with it."""
    with serving() as started, hold("127.0.0.1", 0, "", check_free=True) as holder:
        yield RpcSystem(started, port_of(holder))


@contextmanager
def models_behind_rpc(**settings: object) -> Iterator[RpcSystem]:
    """Applications: ``app``, sums, of two versions; ``text``; ``slow``.

    ``settings``: of the worker.
    """
    with rpc_serving() as system:
        started = system.serving
        started.start_worker(grpc_port=system.port, **settings)
        first = started.start_container(SUM.format(0), input_type=OWN)
        second = started.start_container(SUM.format(100), version="2", input_type=OWN)
        upper = started.start_container(UPPER, "t", "1", "string")
        slow = started.start_container(SLOW, "s", "1", OWN)
        started.apply(
            [
                application("app", input_type=OWN),
                application("text", "t", input_type="string"),
                application("slow", "s", input_type=OWN),
            ],
            [
                model(version(first, input_type=OWN), version(second, name="2", input_type=OWN)),
                model(version(upper, input_type="string"), name="t"),
                model(version(slow, input_type=OWN), name="s"),
            ],
        )
        yield system
