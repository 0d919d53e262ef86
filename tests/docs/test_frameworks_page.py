"""docs/frameworks.md against the frameworks that there are, and the links that it gives."""

import re
from pathlib import Path
from typing import get_args

from clipper.types import Framework

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


def test_the_table_has_every_framework_and_no_other() -> None:
    cells = re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(get_args(Framework))


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
