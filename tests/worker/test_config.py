"""Where a worker finds users' own code."""

from clipper.control.difference import Difference
from clipper.control.snapshot import ApplicationSnapshot, Snapshot
from clipper.settings.application import Selection
from clipper.worker.config import located

OWN = ApplicationSnapshot("own", "float64[1]", 20.0, selection=Selection("p:P", code="d1/code"))
PLAIN = ApplicationSnapshot("plain", "float64[1]", 20.0)


def test_on_a_node_code_is_below_the_folder_of_artifacts() -> None:
    found = located(Snapshot(3, (OWN, PLAIN)), "/cache/artifacts")
    assert [one.selection.code for one in found.applications] == ["/cache/artifacts/d1/code", None]
    assert found.applications[1] is PLAIN and found.generation == 3
    difference = located(Difference(2, 3, (OWN,)), "/cache/artifacts")
    assert difference.applications[0].selection.code == "/cache/artifacts/d1/code"


def test_on_the_servers_machine_a_snapshot_has_whole_paths() -> None:
    snapshot = Snapshot(3, (OWN, PLAIN))
    assert located(snapshot, "") is snapshot
    plain = Snapshot(3, (PLAIN,))
    assert located(plain, "/cache/artifacts") is plain
