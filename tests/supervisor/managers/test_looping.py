"""When a slot counts as being in a crash loop."""

from types import SimpleNamespace
from typing import Any

import pytest

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.managers.reconcile.plan import History, Slot


@pytest.mark.parametrize(("phase", "loops"), [(None, True), ("starting", True), ("ready", False), ("stopping", False)])
def test_a_slot_that_is_tried_again_is_still_in_its_crash_loop(phase: str | None, loops: bool) -> None:
    replica: Any = None if phase is None else SimpleNamespace(phase=phase)
    status = SlotStatus(Slot("m", "1", 1), VersionSpec("a", "import", "m:f"), replica, history=History(crash_loop=True))
    assert status.is_looping is loops
    status.history = History((1.0,), streak=1)
    assert not status.is_looping
