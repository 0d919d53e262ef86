"""The log of a container on a node, as its server saves it, without Ray."""

import asyncio
from pathlib import Path
from typing import Any, cast

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.ray.actor_processes import MAX_PARTS, RayContainer
from clipper.supervisor.managers.ray.actors import Actors
from clipper.supervisor.managers.ray.messages import Launched, Noted

NOTE = ContainerNote("m", "1", 1, 1, "tcp:node:0", VersionSpec("a", "import", "m:f", manager="ray"))


class Chatty:
    """The actors of containers that write more whenever they are read."""

    def __init__(self) -> None:
        self.reads = 0

    async def call(self, actor: str, method: str, *arguments: Any, within_s: float | None = None) -> Any:
        if method == "ended":
            await asyncio.Event().wait()
        self.reads += 1
        return {"text": "more\n", "next_offset": 5 * self.reads}


def test_one_that_writes_all_the_time_is_read_for_a_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        noted = Noted("", "10.0.0.2 (1)", "token", Launched("tcp:10.0.0.2:1", "", 1))
        actors, log = Chatty(), tmp_path / "log"
        container = RayContainer(NOTE, noted, cast(Actors, actors), "a", log, is_new=True)
        async with asyncio.timeout(10.0):
            assert await container.save_log() is None
        assert log.read_text() == "more\n" * MAX_PARTS
        container._watching.cancel()
        await asyncio.wait([container._watching])

    asyncio.run(scenario())
