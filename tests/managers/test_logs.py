import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clipper.managers.logs import LogKeeper, remove, rotated, tail
from waiting import until_async


def test_the_tail_goes_back_into_the_part_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert tail(path, 3) == ()
    rotated(path).write_text("1\n2\n")
    path.write_text("3\n4")
    assert tail(path, 3) == ("2", "3", "4")
    assert tail(path, 1) == ("4",)
    assert tail(path, 9) == ("1", "2", "3", "4")


def test_the_tail_of_one_start_has_nothing_from_before(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    since = path.stat().st_size
    assert tail(path, 9, since) == ()
    with path.open("a") as log:
        log.write("new\n")
    assert tail(path, 9, since) == ("new",)


def test_a_tail_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xff\xfe\n\0ok\n")
    assert tail(path, 1) == ("\0ok",)


def test_remove(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("x")
    remove(path)
    remove(path)
    assert list(tmp_path.iterdir()) == []


async def keep_until(keeper: LogKeeper, condition: Callable[[], object]) -> None:
    task = asyncio.create_task(keeper.run())
    await until_async(condition)
    task.cancel()
    await asyncio.wait([task])


def test_a_process_that_prints_without_end_is_kept_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("ab") as log:
        program = "import itertools\nfor i in itertools.count(): print(i, 'x' * 100)"
        process = subprocess.Popen([sys.executable, "-c", program], stdout=log)
    cuts = set()

    def cut_often() -> bool:
        if rotated(path).exists():
            cuts.add(rotated(path).stat().st_mtime_ns)
            assert rotated(path).stat().st_size <= 1_000_000
        return len(cuts) >= 5

    keeper = LogKeeper(tmp_path, 1_000_000)
    try:
        asyncio.run(keep_until(keeper, cut_often))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    # What it gains between two looks is not a matter of size but of time.
    asyncio.run(keep_until(keeper, lambda: path.stat().st_size <= 1_000_000))
    assert len(tail(path, 3)) == 3


def test_the_newest_part_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a" * 1000 + b"b" * 1000)
    asyncio.run(keep_until(LogKeeper(tmp_path, 1000), lambda: path.stat().st_size == 0))
    assert rotated(path).read_bytes() == b"b" * 1000


def test_a_log_is_cut_even_if_the_rest_cannot_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a" * 2000)
    rotated(path).mkdir()  # a name that cannot be written stands for a disk that is full
    asyncio.run(keep_until(LogKeeper(tmp_path, 1000), lambda: path.stat().st_size == 0))
