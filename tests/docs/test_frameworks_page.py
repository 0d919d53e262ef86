"""docs/frameworks.md against the frameworks that there areand the links that it gives; and the pages of frameworks."""

import re
from pathlib import Path
from typing import get_args

import pytest

from clipper.values.types import Framework
from tests.docs.recipes import SAVES, asked, saved

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


def test_the_table_has_every_framework_and_no_other() -> None:
    cells = re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(get_args(Framework))


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https:)([^)#]+)\)", PAGE.read_text())
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_each_page_of_a_framework_is_linked_and_followed() -> None:
    listed = PAGE.read_text().partition("## One page for each framework")[2].partition("## ")[0]
    assert set(re.findall(r"\]\(([\w-]+)\.md\)", listed)) - {"python-models"} == SAVES.keys()


@pytest.mark.parametrize("framework", ["lightgbm"])  # make docs-test runs all of them, which takes minutes
def test_what_a_file_saves_is_recognised(framework: str, tmp_path: Path) -> None:
    assert saved(framework, tmp_path) == SAVES[framework][1]


@pytest.mark.long
def test_a_page_leads_from_training_to_an_answer(tmp_path: Path) -> None:
    assert saved("scikit-learn", tmp_path) == SAVES["scikit-learn"][1]
    assert asked("scikit-learn", tmp_path)[-1] == "0\n"
