"""Containers that start at the same time: how many may, and who waits."""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from clipper.errors import ContainerFailed
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.caller import SampleSource
from clipper.supervisor.managers.launcher import Container, ContainerNote, Launcher
from clipper.supervisor.managers.replica import COUNTED_S, Death, Replica, StartTurns
from tests.event_loops import ShiftedLoop, run_clean, turn_over


def test_they_start_in_the_order_in_which_they_are_asked_for() -> None:
    async def scenario() -> None:
        starts, begun = StartTurns(2), dict[int, Callable[[], None]]()

        async def start(number: int) -> None:
            begun[number] = await starts.begin()

        waiting = [asyncio.ensure_future(start(number)) for number in range(5)]
        await turn_over()
        assert list(begun) == [0, 1] and starts.is_full
        begun[1]()
        begun[1]()  # who is gone after it was ready has ended once
        await turn_over()
        assert list(begun) == [0, 1, 2]
        waiting[3].cancel()
        begun[0]()
        await turn_over()
        assert list(begun) == [0, 1, 2, 4]
        for end in begun.values():
            end()
        assert not starts.is_full
        await asyncio.wait(waiting)

    run_clean(scenario())


def test_one_that_takes_long_keeps_nobody_waiting() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        starts = StartTurns(1)
        end = await starts.begin()
        second = asyncio.ensure_future(starts.begin())
        await turn_over()
        assert not second.done()
        loop.advance(COUNTED_S)
        end_second = await second
        end()  # it is ready at last, and was not counted any more
        assert starts.is_full
        end_second()
        assert not starts.is_full

    run_clean(scenario())


class FailingLauncher:
    """Each launch takes until a test lets it fail. ``begun``: the slots of those that began."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.may_fail = asyncio.Event()

    async def launch(self, note: ContainerNote, *_: object) -> Container:
        self.begun.append(note.index)
        await self.may_fail.wait()
        raise ContainerFailed("it cannot be started", [])

    async def clean_up(self, note: ContainerNote) -> None:
        pass


def test_a_replica_awaits_its_turn_says_so_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        starts, launcher = StartTurns(1), FailingLauncher()

        def replica(index: int, among: StartTurns | None = starts) -> tuple[Replica, "asyncio.Task[Death]"]:
            note = ContainerNote("m", "1", index, index, "unix:s", VersionSpec("a", "import", "m:f"))
            made = Replica(note, cast(Launcher, launcher), tmp_path / f"{index}.log", starts=among)
            unused: Any = None
            life = made.live(60.0, lambda: 30.0, cast(SampleSource, unused), lambda: None)
            return made, asyncio.get_running_loop().create_task(life)

        (_, first), (second, second_life), (third, third_life) = replica(1), replica(2), replica(3)
        _, elsewhere = replica(4, None)
        await turn_over()
        assert launcher.begun == [1, 4], "that of another machine waits for nobody"
        assert second.progress == third.progress == "waiting while others start"
        second.begin_to_stop()
        assert "was stopped before it was started" in (await second_life).reason
        launcher.may_fail.set()
        assert "it cannot be started" in (await first).reason
        await asyncio.wait([third_life, elsewhere])
        assert launcher.begun == [1, 4, 3] and not starts.is_full

    run_clean(scenario())


def test_one_whose_files_cannot_be_removed_is_settled(tmp_path: Path) -> None:
    """A server waits at its start until adopted replicas are settled."""

    class OnReadOnlyDisk(FailingLauncher):
        async def clean_up(self, note: ContainerNote) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

    async def scenario() -> None:
        launcher, unused = OnReadOnlyDisk(), cast(Any, None)
        launcher.may_fail.set()
        note = ContainerNote("m", "1", 1, 1, "unix:s", VersionSpec("a", "import", "m:f"))
        replica = Replica(note, cast(Launcher, launcher), tmp_path / "log")
        with pytest.raises(OSError, match="Read-only"):
            await replica.live(60.0, lambda: 30.0, unused, lambda: None)
        assert replica.settled.is_set()

    run_clean(scenario())


def test_one_that_is_stopped_before_its_task_begins_is_not_launched(tmp_path: Path) -> None:
    """A launch may build an environment, for which the stop waited."""

    async def scenario() -> None:
        launcher = FailingLauncher()
        launcher.may_fail.set()
        note = ContainerNote("m", "1", 1, 1, "unix:s", VersionSpec("a", "import", "m:f"))
        replica = Replica(note, cast(Launcher, launcher), tmp_path / "log")
        replica.begin_to_stop()
        death = await replica.live(60.0, lambda: 30.0, cast(Any, None), lambda: None)
        assert "was stopped before it was started" in death.reason and launcher.begun == []

    run_clean(scenario())
