"""A run says what it could not measure, and fails."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as program
from benchmarks.gpu.figures import SHORT
from benchmarks.gpu.place import Missing, Place
from benchmarks.paper.figure import Figure, Verdict
from benchmarks.paper.results import write


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two figures on the processor, of which the second cannot be measured; returns the folder of results."""

    def made(place: Place, _effort: object) -> list[Figure]:
        def describe(numbers: Any) -> str:
            return f"{place.note} {numbers['came']}"

        return [Figure(name, f"figure {name}", dict, lambda _: Verdict(), describe) for name in ("one", "two")]

    def attempt(figure: Figure, _console: object, folder: Path) -> bool:
        if figure.name == "one":
            write("one", {"numbers": {"came": "This came."}}, folder)
        return figure.name == "one"

    results = tmp_path / "gpu"
    monkeypatch.setattr(program, "figures", made)
    monkeypatch.setattr(program, "attempt", attempt)
    monkeypatch.setattr(program, "RESULTS", results)
    monkeypatch.setattr(program, "PAGE", results / "page.md")
    monkeypatch.setattr(program, "found", lambda *_: Place())
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return results


def test_the_page_has_what_was_measured_and_the_rest_is_named(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.measure(["one"], SHORT, is_pretended=False) == 0
    assert capsys.readouterr().err == ""
    assert program.measure(["one", "two"], SHORT, is_pretended=False) == 1
    assert capsys.readouterr().err == "Not measured: two. Why is said above.\n"
    page = (two / "page.md").read_text()
    assert page == f"## figure one\n\n{Place().note} This came."


@pytest.mark.usefixtures("two")
def test_what_is_missing_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_driver(*_: Any) -> Place:
        raise Missing("this machine has 2 GPUs, but no driver")

    monkeypatch.setattr(program, "found", no_driver)
    monkeypatch.setattr("sys.argv", ["gpu", "one"])
    assert program.main() == 1
    assert capsys.readouterr().err == "Nothing was measured: this machine has 2 GPUs, but no driver.\n"
    monkeypatch.setattr("sys.argv", ["gpu", "three"])
    with pytest.raises(SystemExit):
        program.main()
    assert "no figure three; there are one two" in capsys.readouterr().err


@pytest.mark.usefixtures("two")
def test_nothing_is_measured_without_wrk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Missing, match="wrk is not installed"):
        program.measure(["one"], SHORT, is_pretended=False)
