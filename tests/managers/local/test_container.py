"""What a container of this machine says of its end."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from clipper.managers.local.container import LocalContainer


class DyingProcess:
    """A process that takes longer to exit than it is first waited for."""

    mark = "mark"
    how_it_ended = "was killed by signal 9"

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.waits = 0

    def kill(self) -> None:
        """Its exit comes later."""

    async def has_exited_within(self, seconds: float) -> bool:
        self.waits += 1
        return self.waits > 1


@pytest.mark.parametrize("is_killed", [True, False])
def test_the_exit_of_one_that_was_killed_for_its_usage_is_waited_for(tmp_path: Path, is_killed: bool) -> None:
    """A fork bomb's connection breaks well before the kernel is done with it."""

    async def test() -> None:
        note: Any = type("Note", (), {"name": "c1", "id": "m:1#1", "listen": "unix:/x"})
        note.spec = type("Spec", (), {"memory_bytes": None})
        container = LocalContainer(note, cast(Any, DyingProcess()), cast(Any, None), tmp_path)
        if is_killed:
            container.kill("had 2049 threads: the bound is 2048")
        assert await container.has_exited_within(1.0) is is_killed
        if is_killed:
            assert container.how_it_ended.startswith("was killed because it had 2049 threads")

    asyncio.run(test())
