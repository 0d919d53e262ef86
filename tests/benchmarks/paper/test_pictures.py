"""The result files that are checked in can be drawn, and say what their figure must show."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES


def result(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_result_is_drawn(figure: Any, tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    PICTURES[figure.name](result(figure.name)["numbers"]).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_verdict_follows_from_the_numbers(figure: Any) -> None:
    document = result(figure.name)
    verdict = figure.judge(document["numbers"])
    assert (verdict.text, verdict.passed) == (document["verdict"], document["passed"])
