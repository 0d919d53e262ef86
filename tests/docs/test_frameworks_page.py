"""docs/frameworks.md against the frameworks that there are, the links that it gives, and the models that it saves."""

import re
from pathlib import Path
from typing import get_args

import pytest

from clipper.values.types import Framework
from tests.docs.recipes import SAVES, recipes, run

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


def test_the_table_has_every_framework_and_no_other() -> None:
    cells = re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(get_args(Framework))


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https:)([^)#]+)\)", PAGE.read_text())
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_each_file_that_saves_a_model_is_known_to_make_docs_test() -> None:
    assert recipes().keys() == SAVES.keys()


@pytest.mark.parametrize("framework", ["sklearn", "lightgbm"])  # make docs-test runs all of them, which takes a minute
def test_what_a_file_saves_is_recognised(framework: str, tmp_path: Path) -> None:
    assert run(framework, tmp_path) == SAVES[framework]
