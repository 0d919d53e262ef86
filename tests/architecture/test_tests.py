"""Rules of the tests themselves."""

import re

from tests.architecture.source_tree import ROOT

TESTS = ROOT / "tests"
MAX_NAME = 69


def test_no_test_has_a_name_too_long_to_read() -> None:
    texts = [file.read_text() for file in TESTS.rglob("test_*.py")]
    names = [name for text in texts for name in re.findall(r"\bdef (test_\w+)", text)]
    assert len(names) > 3000
    assert [name for name in names if len(name) > MAX_NAME] == []


def test_the_makefile_names_tests_that_are_there() -> None:
    named = re.findall(r"tests/[\w/]+\.py", (ROOT / "Makefile").read_text())
    assert "tests/worker/test_worker.py" in named
    assert [path for path in named if not (ROOT / path).exists()] == []
