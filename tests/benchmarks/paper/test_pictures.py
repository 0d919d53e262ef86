"""The result files that are checked in can be drawn."""

from pathlib import Path

import pytest

from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES
from benchmarks.paper.results import RESULTS, read

FOUND = read(FIGURES)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in PICTURES if name in FOUND])
def test_result_is_drawn(name: str, tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    PICTURES[name](FOUND[name]["numbers"]).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (RESULTS / f"{name}.png").stat().st_size > 1_000
