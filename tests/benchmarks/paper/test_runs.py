"""A run of the figures: what is measured again, when it is ended, and which results stand beside each other."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop

from benchmarks.harness.revision import CHANGED
from benchmarks.paper.__main__ import TookTooLong, ended_after, problems, to_measure
from benchmarks.paper.figure import Claim, Figure, Verdict
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.results import read, write

NAMES = [figure.name for figure in FIGURES]


def documented(revision: str) -> dict[str, Any]:
    return {"machine": {"revision": revision}, "numbers": {"holds": True}}


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that hold if their numbers say so: a promise each, and a statement of the paper."""

    def judge(numbers: Any) -> Verdict:
        return Verdict((Claim("paper", "", False),), (Claim("promise", "what came", numbers["holds"]),))

    figures = [Figure(name, name, lambda _: {}, judge, str) for name in ("one", "two", "three")]
    monkeypatch.setattr("benchmarks.paper.__main__.FIGURES", figures)


def test_a_run_that_was_stopped_goes_on_where_it_was() -> None:
    done = {name: documented("abc") for name in NAMES[:3]}
    assert [figure.name for figure in to_measure([], done, "abc")] == NAMES[3:]
    assert [figure.name for figure in to_measure([], done, "def")] == NAMES
    assert [figure.name for figure in to_measure([NAMES[0]], done, "abc")] == NAMES[:1]


@pytest.mark.parametrize("now", ["", f"abc{CHANGED}"])
def test_where_nobody_can_say_what_was_measured_all_is_measured_again(now: str) -> None:
    assert [figure.name for figure in to_measure([], dict.fromkeys(NAMES, documented(now)), now)] == NAMES


@pytest.mark.usefixtures("three")
def test_results_of_different_commits_and_broken_promises_are_problems() -> None:
    """A claim of the paper that does not hold here is no problem."""
    assert problems({"one": documented("abc"), "two": documented("abc")}) == []
    (mixed,) = problems({"one": documented("abc"), "two": documented("def")})
    assert "abc: one" in mixed and "def: two" in mixed
    (changed,) = problems({"one": documented(f"abc{CHANGED}")})
    assert "no commit has" in changed
    (broken,) = problems({"one": documented("abc") | {"numbers": {"holds": False}}})
    assert broken == "one breaks a promise: promise: what came"


def test_a_result_is_read_as_it_was_written_and_its_rows_are_lines(tmp_path: Path) -> None:
    document = {"numbers": {"rows": [{"a": 1.5, "b": "x, [y] {z}"}, {"a": [1, 2, 3]}], "none": [], "text": "a\nb"}}
    write(NAMES[0], document, tmp_path)
    assert read(FIGURES, tmp_path) == {NAMES[0]: document}
    assert "[ 1, 2, 3 ]" in (tmp_path / f"{NAMES[0]}.json").read_text()


def test_a_run_is_ended_when_its_time_is_over() -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    for work in (lambda: time.sleep(60), lambda: uvloop.run(wait())):
        began_s = time.monotonic()
        with pytest.raises(TookTooLong), ended_after(0.1):
            work()
        assert time.monotonic() - began_s < 30
    with ended_after(60):
        pass
