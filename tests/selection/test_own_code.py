"""Users' own policies are made apart: what hangs, what fails, what comes late."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument
from clipper.selection import own_code
from clipper.selection.own_code import MAX_HANGING, OwnCode
from clipper.selection.policies.exp3 import Exp3
from clipper.snapshot import ApplicationSnapshot, Selection

# Hangs while the file ``go`` is not there, in a module of each number; where it is made, not where it is imported.
HANGS = """
import pathlib, time
from clipper.selection.policies.single import Single
class Own(Single):
    def __init__(self):
        while not (pathlib.Path(__file__).parent / "go").exists():
            time.sleep(0.005)
class Quick(Single):
    pass
class Ends(Single):
    def __init__(self):
        raise KeyboardInterrupt
"""


def application(name: str, policy: str, code: Path | None = None, half_life: int = 1000) -> ApplicationSnapshot:
    selection = Selection(policy, code=str(code) if code else None, half_life=half_life)
    return ApplicationSnapshot(name, "float64[*]", 20.0, selection=selection, id=name)


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_code_that_hangs.py").write_text(HANGS)
    yield tmp_path
    # No thread is left that waits.
    (tmp_path / "go").touch()


def test_one_that_hangs_is_waited_for_once_and_comes_late(code: Path) -> None:
    async def run() -> None:
        late: asyncio.Queue[str] = asyncio.Queue()
        own = OwnCode(late.put_nowait, wait_s=0.05)
        hangs, quick = application("a", "own_code_that_hangs:Own", code), application("b", "exp3")
        also = application("c", "own_code_that_hangs:Quick", code)
        await own.prepare([hangs, quick])
        # Of several that are new at once, those behind the one that hangs are there.
        behind = application("d", "own_code_that_hangs:Quick", code)
        hangs_too = application("e", "own_code_that_hangs:Own", code)
        await own.prepare([hangs, hangs_too, behind])
        assert type(own.made(behind).policy).__name__ == "Quick"
        with pytest.raises(InvalidArgument, match="own_code_that_hangs:Own is still being imported"):
            own.made(hangs)
        assert isinstance(own.made(quick).policy, Exp3)
        # The next one is made although that hangs.
        await own.prepare([hangs, also])
        assert type(own.made(also).policy).__name__ == "Quick"
        (code / "go").touch()
        assert await asyncio.wait_for(late.get(), 60) == "a"
        made = own.made(hangs)
        assert type(made.policy).__name__ == "Own"
        await own.prepare([hangs])
        assert own.made(hangs) is made
        # Another setting of it makes another one.
        changed = application("a", "own_code_that_hangs:Own", code, half_life=7)
        await own.prepare([changed])
        assert own.made(changed) is not made
        with pytest.raises(InvalidArgument):
            own.made(hangs)

    asyncio.run(run())


def test_one_whose_application_went_meanwhile_is_told_to_nobody(code: Path) -> None:
    async def run() -> None:
        late: list[str] = []
        own = OwnCode(late.append, wait_s=0.01)
        await own.prepare([application("a", "own_code_that_hangs:Own", code)])
        await own.prepare([])
        (code / "go").touch()
        again = application("b", "own_code_that_hangs:Own", code)
        while not late:
            await own.prepare([again])
            await asyncio.sleep(0.005)
            if own._attempts["b"][1].ended.is_set():
                break
        assert "a" not in late

    asyncio.run(run())


def test_what_fails_says_why(code: Path) -> None:
    async def run() -> None:
        own = OwnCode(lambda name: None)
        missing, ends = (
            application("a", "own_code_that_hangs:Missing", code),
            application("b", "own_code_that_hangs:Ends", code),
        )
        await own.prepare([missing, ends])
        with pytest.raises(InvalidArgument, match="no class or function 'Missing'"):
            own.made(missing)
        with pytest.raises(InvalidArgument, match="ended the thread that made it"):
            own.made(ends)

    asyncio.run(run())


def test_no_more_than_so_many_hang(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "MAX_HANGING", 2)
    assert MAX_HANGING > 2

    async def run() -> None:
        own = OwnCode(lambda name: None, wait_s=0.01)
        hanging = [application(name, "own_code_that_hangs:Own", code) for name in "abc"]
        for count in (1, 2, 3):
            await own.prepare(hanging[:count])
        with pytest.raises(InvalidArgument, match="2 others hang"):
            own.made(hanging[2])

    asyncio.run(run())
