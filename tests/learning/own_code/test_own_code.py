"""Users' own policies are made apart: what hangs, what fails, what comes late."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import InvalidArgument, Unavailable
from clipper.learning.own_code import watch as own_code
from clipper.learning.own_code.trial import Verdict
from clipper.learning.own_code.watch import MAX_HANGING, ImportNotes, OwnCode
from clipper.learning.policies.exp3 import Exp3
from clipper.learning.policies.policy import Policy
from clipper.settings.application import Selection
from tests.waiting import TIMEOUT_S

# Hangs while the file ``go`` is not there, in a module of each number; where it is made, not where it is imported.
HANGS = """
import pathlib, time
from clipper.learning.policies.single import Single
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


async def passes(_: Selection) -> Verdict:
    return Verdict(None)


def application(name: str, policy: str, code: Path | None = None, half_life: int = 1000) -> ApplicationSnapshot:
    selection = Selection(policy, code=str(code) if code else None, half_life=half_life)
    return ApplicationSnapshot(name, "float64[*]", 20.0, selection=selection, id=name)


async def made(own: OwnCode, application: ApplicationSnapshot, *others: ApplicationSnapshot) -> Policy:
    """Its policy. On a busy machine it takes longer than is waited for, and is there a moment later."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            await own.prepare([*others, application])
            with suppress(InvalidArgument):
                return own.made(application).policy
            await asyncio.sleep(0.01)


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_code_that_hangs.py").write_text(HANGS)
    yield tmp_path
    # No thread is left that waits.
    (tmp_path / "go").touch()


def test_one_that_hangs_is_waited_for_once_and_comes_late(code: Path) -> None:
    async def run() -> None:
        late: asyncio.Queue[str] = asyncio.Queue()
        own = OwnCode(late.put_nowait, passes, ImportNotes(None), wait_s=0.05)
        hangs, quick = application("a", "own_code_that_hangs:Own", code), application("b", "exp3")
        also = application("c", "own_code_that_hangs:Quick", code)
        await own.prepare([hangs, quick])
        # Of several that are new at once, those behind the one that hangs are there.
        behind = application("d", "own_code_that_hangs:Quick", code)
        hangs_too = application("e", "own_code_that_hangs:Own", code)
        assert type(await made(own, behind, hangs, hangs_too)).__name__ == "Quick"
        with pytest.raises(InvalidArgument, match="own_code_that_hangs:Own is still being imported"):
            own.made(hangs)
        assert isinstance(own.made(quick).policy, Exp3)
        # The next one is made although that hangs.
        assert type(await made(own, also, hangs)).__name__ == "Quick"
        (code / "go").touch()
        while await asyncio.wait_for(late.get(), TIMEOUT_S) != "a":
            pass  # one of the quick ones was late, too
        found = own.made(hangs)
        assert type(found.policy).__name__ == "Own"
        await own.prepare([hangs])
        assert own.made(hangs) is found
        # Another setting of it makes another one.
        changed = application("a", "own_code_that_hangs:Own", code, half_life=7)
        await own.prepare([changed])
        assert own.made(changed) is not found
        with pytest.raises(InvalidArgument):
            own.made(hangs)

    asyncio.run(run())


def test_one_whose_application_went_meanwhile_is_told_to_nobody(code: Path) -> None:
    async def run() -> None:
        late: list[str] = []
        own = OwnCode(late.append, passes, ImportNotes(None), wait_s=0.01)
        await own.prepare([application("a", "own_code_that_hangs:Own", code)])
        await own.prepare([])
        (code / "go").touch()
        again = application("b", "own_code_that_hangs:Own", code)
        while not late:
            await own.prepare([again])
            await asyncio.sleep(0.005)
            if own._attempts["b"].ended.is_set():
                break
        assert "a" not in late

    asyncio.run(run())


def test_what_fails_says_why(code: Path) -> None:
    async def run() -> None:
        own = OwnCode(lambda name: None, passes, ImportNotes(None))
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
        own = OwnCode(lambda name: None, passes, ImportNotes(None), wait_s=0.01)
        hanging = [application(name, "own_code_that_hangs:Own", code) for name in "abc"]
        for count in (1, 2, 3):
            await own.prepare(hanging[:count])
        with pytest.raises(InvalidArgument, match="2 other policies hang"):
            own.made(hanging[2])

    asyncio.run(run())


def test_one_for_which_no_thread_is_left_says_so_and_is_not_noted(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        own, quick = OwnCode(lambda name: None, passes, notes), application("a", "own_code_that_hangs:Quick", code)
        monkeypatch.setattr(threading.Thread, "start", start)
        await own.prepare([quick])
        with pytest.raises(InvalidArgument, match="can't start new thread"):
            own.made(quick)

    notes = ImportNotes(tmp_path / "note")
    asyncio.run(run())
    assert msgspec.json.decode((tmp_path / "note").read_bytes()) == []


def test_what_is_tried_in_vain_is_not_imported(code: Path) -> None:
    verdicts = [Verdict("it took too long", is_final=False), Verdict(None)]
    tried: list[str] = []

    async def try_out(selection: Selection) -> Verdict:
        tried.append(selection.policy)
        if selection.policy.endswith("Wrong"):
            return Verdict("it is wrong")
        if selection.policy.endswith("Busy"):
            raise [Unavailable, OSError][len(tried) % 2]("no process can be started")
        return verdicts.pop(0)

    async def run() -> None:
        late: asyncio.Queue[str] = asyncio.Queue()
        own = OwnCode(late.put_nowait, try_out, ImportNotes(None), retry_s=0.01)
        quick = application("a", "own_code_that_hangs:Quick", code)
        alike = application("b", "own_code_that_hangs:Quick", code, half_life=7)
        wrong = application("c", "own_code_that_hangs:Wrong", code)
        busy = application("d", "own_code_that_hangs:Busy", code)
        await own.prepare([quick, alike, wrong, busy])
        with pytest.raises(InvalidArgument, match="it is wrong"):
            own.made(wrong)
        with pytest.raises(InvalidArgument, match="no process can be started"):
            own.made(busy)
        while not all(own._attempts[name].ended.is_set() for name in "ab"):
            await asyncio.wait_for(late.get(), TIMEOUT_S)
        assert own.made(quick) is not own.made(alike)
        # One trial, and one more, for both.
        assert tried.count("own_code_that_hangs:Quick") == 2
        assert tried.count("own_code_that_hangs:Wrong") == 1
        # An application that is gone is not tried any more.
        await own.prepare([quick])
        count = tried.count("own_code_that_hangs:Busy")
        await asyncio.sleep(0.05)
        assert tried.count("own_code_that_hangs:Busy") <= count + 1

    asyncio.run(run())


def test_what_was_being_imported_when_a_worker_ended_is_left_out(code: Path, tmp_path: Path) -> None:
    path = tmp_path / "worker-0.importing"
    hangs, quick = (
        application("a", "own_code_that_hangs:Own", code),
        application("b", "own_code_that_hangs:Quick", code),
    )

    async def serve(applications: list[ApplicationSnapshot]) -> OwnCode:
        own = OwnCode(lambda name: None, passes, ImportNotes(path), wait_s=0.01)
        await own.prepare(applications)
        return own

    async def run() -> None:
        own = await serve([quick, hangs])
        await made(own, quick, hangs)
        (noted,) = msgspec.json.decode(path.read_bytes())
        # Each is a worker that ends as the first did.
        for _ in range(2):
            own = await serve([hangs, quick])
            assert type(await made(own, quick, hangs)).__name__ == "Quick"
            with pytest.raises(InvalidArgument, match="own_code_that_hangs:Own is left out"):
                own.made(hangs)
            assert msgspec.json.decode(path.read_bytes()) == [noted]
        # Its application is another now.
        await made(own, application("a", "own_code_that_hangs:Quick", code), quick)
        assert msgspec.json.decode(path.read_bytes()) == []

    asyncio.run(run())


@pytest.mark.parametrize("damaged", [b'{"a": ', b'["\xff"]'])
def test_notes_that_cannot_be_read_or_written_are_done_without(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "note"
    path.write_bytes(damaged)
    notes = ImportNotes(path)
    assert not notes.was_fatal("a")
    notes.begin("a")
    assert ImportNotes(path).was_fatal("a")
    there_is_none = ImportNotes(tmp_path / "missing" / "note")
    there_is_none.begin("a")
    there_is_none.end("a")
