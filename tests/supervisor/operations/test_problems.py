"""The problems that the server reports for versions and replicas that do not come up."""

from types import SimpleNamespace
from typing import Any

from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.managers.reconcile.plan import History, Slot
from clipper.supervisor.operations.operations import problems_of_failed, problems_of_replicas
from clipper.supervisor.registry.records import VersionRecord


def status(index: int, progress: str | None = None, *, phase: str = "starting", history: History | None = None) -> Any:
    replica: Any = SimpleNamespace(progress=progress, phase=phase, welcome=None)
    known = {} if history is None else {"history": history}
    return SlotStatus(Slot("m", "2", index), VersionSpec("a", "import", "m:f"), replica, **known)


def test_a_deployment_that_waits_for_room_says_so() -> None:
    """It waited for minutes without a word while earlier versions had all of a cluster."""
    room = "waiting for room in the Ray cluster: 1 CPU each"
    found = problems_of_replicas([status(1, phase="ready"), status(2, room), status(3, room), status(4, "sending")])
    assert found == [f"m:2: 2 of its 4 replicas are {room}"]
    assert problems_of_replicas([status(1, "sending"), status(2)]) == []


def test_a_model_of_which_no_version_starts_says_why_and_what_to_do() -> None:
    """Nothing links it yet, so no application told of it, and the server had no problem."""

    def version(model: str, name: str, age: float, **known: Any) -> VersionRecord:
        spec = VersionSpec("a", "import", "m:f")
        return VersionRecord(model, name, spec, Batching(), True, 1, created_at=100 - age, **known)

    failed = {"state": "failed", "last_error": "No module named 'sklearn'\n  in requirements.txt"}
    newest = version("broken", "2", 0, **failed)
    older = version("broken", "1", 1, state="failed", last_error="MemoryError")
    assert problems_of_failed([newest, older, version("well", "1", 1), version("well", "2", 0, **failed)]) == [
        "model 'broken' has no version that starts; broken:2 has failed: No module named 'sklearn' in "
        "requirements.txt; see clipper logs broken:2, and deploy a mended version, or remove the model: "
        "clipper model delete broken"
    ]
