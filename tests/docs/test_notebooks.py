"""The notebooks of docs/notebooks, which `make notebooks` runs: their outputs are whole, and their code is sound."""

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_are_four() -> None:
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run_or_none(path: Path) -> None:
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts in (list(range(1, len(counts) + 1)), [None] * len(counts))
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert bool(outputs) == any(counts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_compiles_and_what_it_imports_of_clipper_is_there(path: Path) -> None:
    for cell in cells(path, "code"):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "clipper":
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_starts_a_server_of_its_own_and_stops_it(path: Path) -> None:
    code = ["".join(cell["source"]) for cell in cells(path, "code")]
    assert 'os.environ["CLIPPER_HOME"] = tempfile.mkdtemp()' in code[0] and '"--query-port", "0"' in code[0]
    assert "clipper.stop()" in code[-1]
