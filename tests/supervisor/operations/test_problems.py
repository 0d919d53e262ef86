"""What the server says of replicas that do not come up."""

from types import SimpleNamespace
from typing import Any

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.managers.reconcile.plan import History, Slot
from clipper.supervisor.operations.operations import problems_of_replicas


def status(index: int, progress: str | None = None, *, phase: str = "starting", history: History | None = None) -> Any:
    replica: Any = SimpleNamespace(progress=progress, phase=phase, welcome=None)
    known = {} if history is None else {"history": history}
    return SlotStatus(Slot("m", "2", index), VersionSpec("a", "import", "m:f"), replica, **known)


def test_a_deployment_that_waits_for_room_says_so() -> None:
    """It waited for minutes without a word while earlier versions had all of a cluster."""
    room = "waiting for room in the Ray cluster: 1 CPUs each"
    found = problems_of_replicas([status(1, phase="ready"), status(2, room), status(3, room), status(4, "sending")])
    assert found == [f"m:2: 2 of its 4 replicas are {room}"]
    assert problems_of_replicas([status(1, "sending"), status(2)]) == []
