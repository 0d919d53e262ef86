"""A node that is lost while a container starts there says nothing about the model: it is placed again."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

from clipper.errors import ClipperError, ContainerFailed
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.caller import SampleSource
from clipper.supervisor.managers.launcher import ContainerNote, NodeLost
from clipper.supervisor.managers.manager import Manager, SlotStatus
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.managers.replica import Replica
from clipper.supervisor.reconciler.reconciler import slot_facts
from tests.event_loops import run_clean
from tests.waiting import until_async

SPEC = VersionSpec("a", "import", "m:f", manager="ray")
SLOT = Slot("m", "1", 1)


class Elsewhere:
    """Its containers do not come up, each for the next reason. One that was started before has none."""

    def __init__(self, *errors: ClipperError | None) -> None:
        self.errors = list(errors)

    def choose_address(self, number: int) -> str:
        return "tcp:node:0"

    async def launch(self, note: ContainerNote, *_: object) -> Any:
        if (error := self.errors.pop(0)) is not None:
            raise error

        async def exits(seconds: float) -> bool:
            return True

        async def stops(grace_s: float) -> None: ...

        async def saves() -> None: ...

        exited = asyncio.Event()
        exited.set()
        ended = "was lost with its node or its actor: it died"
        return SimpleNamespace(
            address=None, pid=1, node="10.0.0.2", warning=None, exited=exited, how_it_ended=ended, is_lost=True,
            has_exited_within=exits, stop=stops, save_log=saves,
        )  # fmt: skip

    async def clean_up(self, note: ContainerNote) -> None: ...


def test_a_log_that_its_node_does_not_give_is_told(tmp_path: Path) -> None:
    async def unreachable() -> str:
        return "Ray: no answer within 10 s"

    async def scenario() -> None:
        manager = Manager({}, tmp_path, lambda: 1, lambda _: 30.0, cast(SampleSource, None), lambda: None)
        for index, save in ((1, unreachable), (2, AsyncMock(return_value=None))):
            slot = Slot("m", "1", index)
            note = ContainerNote(*("m", "1", index, index, "tcp:node:0"), SPEC)
            replica = Replica(note, cast(Any, None), tmp_path / "log", cast(Any, SimpleNamespace(save_log=save)))
            manager._add(SlotStatus(slot, SPEC, replica))
        assert await manager.save_logs(SLOT.model_id) == {"m:1#1": "Ray: no answer within 10 s"}

    run_clean(scenario())


def test_a_start_that_ends_with_its_node_has_not_failed(tmp_path: Path) -> None:
    """The version failed, as if its model were broken."""

    async def scenario() -> None:
        launcher = Elsewhere(NodeLost("its node was lost"), None, ContainerFailed("its model cannot be loaded"))
        samples: Any = SimpleNamespace(known_type=lambda _: None, has_killed=lambda *_: False)
        manager = Manager(
            {"ray": cast(Any, launcher)}, tmp_path, lambda: 1, lambda _: 30.0, cast(SampleSource, samples), lambda: None
        )
        for reason, has_failed in (("its node was lost", False), ("lost with its node", False), ("be loaded", True)):
            manager.start(SLOT, SPEC)
            (status,) = manager.slots()
            await until_async(lambda: status.replica is None)  # noqa: B023
            assert reason in (status.last_error or "")
            facts = slot_facts(status, manager)
            assert facts.phase == "dead" and (facts.start_failure is not None) is has_failed

    run_clean(scenario())
