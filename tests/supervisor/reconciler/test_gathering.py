"""Facts of slots are made anew where something has changed, and are the same objects elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from clipper.control.snapshot import ReplicaAddress
from clipper.model.protocol.messages import Welcome
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.caller import SampleSource
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.manager import Manager, SlotStatus
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.operations.operations import problems_of_replicas
from clipper.supervisor.reconciler.reconciler import LOOK_AT_ALL_S, SlotGathering, slot_facts
from clipper.values.types import DType, InputType

SPEC = VersionSpec("a", "import", "m:f")


def replica(phase: str, node: str | None = None) -> Any:
    address = ReplicaAddress("r", "unix:r")
    note = ContainerNote("m", "1", 1, 1, "unix:r", SPEC)
    return SimpleNamespace(
        note=note,
        phase=phase,
        welcome=None,
        warning=None,
        progress=None,
        address=address,
        node=node,
        retire=lambda: None,
        begin_to_stop=lambda: None,
    )


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    manager = Manager({}, tmp_path, lambda: 1, lambda _: 30.0, cast(SampleSource, None), lambda: None)
    for name in ("n", "m"):
        for index in (2, 1):
            manager._add(SlotStatus(Slot(name, "1", index), SPEC, replica("ready")))
    return manager


def test_only_what_was_touched_is_made_anew(manager: Manager) -> None:
    gathering = SlotGathering(manager)
    first = gathering.facts(0.0)
    assert [str(one.slot) for one in first] == ["m:1#1", "m:1#2", "n:1#1", "n:1#2"]
    assert gathering.facts(0.1) is first
    manager.slots()[2].replica.phase = "stopping"  # type: ignore[union-attr]
    manager.retire(Slot("n", "1", 1))
    second = gathering.facts(0.2)
    assert [now is then for now, then in zip(second, first)] == [True, True, False, True]
    assert second[2].phase == "stopping"
    manager.retire(Slot("n", "1", 1))  # touched, and the same as before
    assert gathering.facts(0.3) is second
    manager.forget(Slot("m", "1", 2))
    manager._add(SlotStatus(Slot("m", "1", 3), SPEC, replica("starting")))
    third = gathering.facts(0.4)
    assert [str(one.slot) for one in third] == ["m:1#1", "m:1#3", "n:1#1", "n:1#2"]
    assert third[0] is first[0] and third[2] is second[2]


def test_a_change_that_nobody_told_of_is_seen_later(manager: Manager) -> None:
    gathering = SlotGathering(manager)
    first = gathering.facts(0.0)
    manager.slots()[0].replica.phase = "starting"  # type: ignore[union-attr]
    assert gathering.facts(LOOK_AT_ALL_S / 2) is first
    found = gathering.facts(LOOK_AT_ALL_S)
    assert found[0].phase == "starting" and found[1:] == first[1:]
    assert all(now is then for now, then in zip(found[1:], first[1:]))


def test_replicas_on_nodes_that_are_being_emptied_have_to_move(tmp_path: Path) -> None:
    changes: list[None] = []
    manager = Manager({}, tmp_path, lambda: 1, lambda _: 30.0, cast(SampleSource, None), lambda: changes.append(None))
    # One node's address begins like another's.
    for index, node in enumerate((None, "10.0.0.1 (ab)", "10.0.0.12 (cd)"), 1):
        manager._add(SlotStatus(Slot("m", "1", index), SPEC, replica("ready", node)))
    gathering = SlotGathering(manager)
    assert [one.has_to_move for one in gathering.facts(0.0)] == [False] * 3
    manager.empty({"10.0.0.1"})
    assert [one.has_to_move for one in gathering.facts(0.1)] == [False, True, False] and len(changes) == 1
    manager.empty({"10.0.0.1"})
    assert len(changes) == 1
    manager.empty(set())
    assert [one.has_to_move for one in gathering.facts(0.2)] == [False] * 3 and len(changes) == 2


@pytest.mark.parametrize(
    ("device", "runtime", "warned"),
    [
        ("", "python 3.11.7", False),
        ("cuda (NVIDIA L4)", "python 3.11.7, on cuda (NVIDIA L4)", False),
        ("CPU", "python 3.11.7, on CPU", True),
    ],
)
def test_a_model_that_leaves_its_gpu_idle_is_told(manager: Manager, device: str, runtime: str, warned: bool) -> None:
    spec = replace(SPEC, gpus="0.5")
    on_gpu = replica("ready")
    on_gpu.welcome = Welcome("m", "1", InputType(DType.STRING), runtime="python 3.11.7", device=device)
    on_gpu.warning = "saved with another version"
    status = SlotStatus(Slot("m", "1", 1), spec, on_gpu)
    facts = slot_facts(status, manager)
    assert facts.runtime == runtime
    unused = "; GPUs are reserved for it (--gpus 0.5), but it computes on the processor: its library found no GPU that"
    assert (facts.warning or "").startswith(f"saved with another version{unused if warned else ''}")
    assert (facts.warning == on_gpu.warning) is not warned
    problems = problems_of_replicas([status])
    assert problems == (["m:1: GPUs are reserved for it (--gpus), but it computes on the processor"] if warned else [])
