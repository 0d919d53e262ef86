"""Rules of the tests themselves."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, imports_in

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
MAX_NAME = 69
# Modules that lie in folders of tests, by their bare names; those of scripts/ are imported so.
BARE = (
    {file.stem for file in FILES} - {file.stem for file in (ROOT / "scripts").glob("*.py")} - {"__init__", "prometheus"}
)


@cache
def imported_by(file: Path) -> list[str]:
    return [found.module for found in imports_in(file.read_text(), file.relative_to(ROOT).as_posix(), "")]


def test_no_test_has_a_name_too_long_to_read() -> None:
    names = [name for file in FILES for name in re.findall(r"\bdef (test_\w+)", file.read_text())]
    assert len(names) > 3000
    assert [name for name in names if len(name) > MAX_NAME] == []


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.name)
def test_what_tests_share_is_imported_by_its_whole_path(folder: Path) -> None:
    """``from tests.supervisor.rollout.world import``: tests are one package."""
    assert (folder / "__init__.py").exists()
    bare = [
        f"{file.name}: {module}"
        for file in folder.glob("*.py")
        for module in imported_by(file)
        if module.partition(".")[0] in BARE
    ]
    assert bare == [], "write the whole path, such as `from tests.worker.frontend.http_calls import`"


def calls_in(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each call, with its place and what it calls."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield f"{file.relative_to(TESTS)}:{node.lineno}: {ast.unparse(node.func)}", node


def test_no_test_fails_because_a_busy_machine_is_slow() -> None:
    """httpx waits for 5 s by itself. A list of health checks takes the place of the profile's, which has too_slow."""
    hasty = []
    for place, call in (found for file in FILES for found in calls_in(file)):
        given = {one.arg: ast.unparse(one.value) for one in call.keywords}
        if re.search(r": httpx\.(get|post|put|delete|options|request|Client|AsyncClient)$", place):
            hasty += [place] if given.keys().isdisjoint({"timeout", None}) else []
        if "too_slow" not in given.get("suppress_health_check", "too_slow"):
            hasty.append(f"{place}: suppress_health_check lacks HealthCheck.too_slow")
    assert hasty == []


def test_only_the_benchmarks_own_tests_import_them() -> None:
    found = [
        f"{file.relative_to(TESTS)}: {module}"
        for file in FILES
        if not file.is_relative_to(TESTS / "benchmarks")
        for module in imported_by(file)
        if module.partition(".")[0] == "benchmarks"
    ]
    assert found == []


def test_the_makefile_names_tests_that_are_there() -> None:
    named = re.findall(r"tests/[\w/]+\.py", (ROOT / "Makefile").read_text())
    assert "tests/worker/test_worker.py" in named
    assert [path for path in named if not (ROOT / path).exists()] == []
