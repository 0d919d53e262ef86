"""The reason that a container of this machine gives for its end."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from clipper.supervisor.managers.local.launcher import LocalContainer


class DyingProcess:
    """A process that takes longer to exit than it is first waited for."""

    mark = "mark"
    how_it_ended = "was killed by signal 9"

    def __init__(self, *, is_ending: bool) -> None:
        self.exited = asyncio.Event()
        self.is_ending = is_ending
        self.waits = 0

    def kill(self) -> None:
        """Its exit comes later."""

    async def has_exited_within(self, seconds: float) -> bool:
        self.waits += 1
        return self.waits > 1


@pytest.mark.parametrize(
    ("is_killed", "is_ending", "is_waited_for"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_the_end_of_one_that_is_ending_is_waited_for(
    tmp_path: Path, is_killed: bool, is_ending: bool, is_waited_for: bool
) -> None:
    """A fork bomb's connection breaks well before the kernel is done with it. On a busy machine any takes a while."""

    async def test() -> None:
        note: Any = type("Note", (), {"name": "c1", "id": "m:1#1", "listen": "unix:/x"})
        note.spec = type("Spec", (), {"memory_bytes": None})
        process = cast(Any, DyingProcess(is_ending=is_ending))
        container = LocalContainer(note, process, cast(Any, None), tmp_path)
        if is_killed:
            container.kill("had 2049 threads: the bound is 2048")
        assert await container.has_exited_within(1.0) is is_waited_for
        if is_killed:
            assert container.how_it_ended.startswith("was killed because it had 2049 threads")

    asyncio.run(test())
