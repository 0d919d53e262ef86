"""A run of the figures: what is measured again, when it is ended, and which results stand beside each other."""

import asyncio
import time
from typing import Any

import pytest
import uvloop

from benchmarks.paper.__main__ import RESULTS, TookTooLong, documents, ended_after, problems, to_measure
from benchmarks.paper.figures import FIGURES
from benchmarks.revision import CHANGED

NAMES = [figure.name for figure in FIGURES]


def documented(revision: str, passed: bool = True) -> dict[str, Any]:
    return {"passed": passed, "verdict": "text", "machine": {"revision": revision}}


def test_a_run_that_was_stopped_goes_on_where_it_was() -> None:
    done = {name: documented("abc") for name in NAMES[:3]}
    assert [figure.name for figure in to_measure([], done, "abc")] == NAMES[3:]
    assert [figure.name for figure in to_measure([], done, "def")] == NAMES
    assert [figure.name for figure in to_measure([NAMES[0]], done, "abc")] == NAMES[:1]


@pytest.mark.parametrize("now", ["", f"abc{CHANGED}"])
def test_where_nobody_can_say_what_was_measured_all_is_measured_again(now: str) -> None:
    assert [figure.name for figure in to_measure([], dict.fromkeys(NAMES, documented(now)), now)] == NAMES


def test_results_of_different_commits_are_told() -> None:
    assert problems({"one": documented("abc"), "two": documented("abc")}) == []
    (mixed,) = problems({"one": documented("abc"), "two": documented("def")})
    assert "abc: one" in mixed and "def: two" in mixed
    (changed,) = problems({"one": documented(f"abc{CHANGED}")})
    assert "no commit has" in changed
    (failed,) = problems({"one": documented("abc", passed=False)})
    assert failed.startswith("one does not show")


def test_the_results_that_are_checked_in_are_one_set_of_times_and_one_of_all_else() -> None:
    found = documents(RESULTS)
    assert list(found) == NAMES
    # What falls short in them is said on the page, and nothing else is.
    short = {name for name, document in found.items() if not document["passed"]}
    for is_timed in (True, False):
        names = {figure.name for figure in FIGURES if figure.is_timed is is_timed}
        assert len(problems({name: found[name] for name in names})) == len(short & names)
    page = (RESULTS.parents[2] / "docs" / "paper.md").read_text()
    told = page[page.index("## What falls short") :]
    assert {name for name in NAMES if f"- `{name}`:" in told} == short


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
