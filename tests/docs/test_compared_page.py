"""docs/compared.md: each row says what is so here, and shows where; what it counts is counted."""

import re
from pathlib import Path
from typing import get_args

import pytest

from clipper.learning.policies.by_name import POLICIES
from clipper.values.types import Framework

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compared.md").read_text()
ROWS = [row.strip("|").split("|") for row in re.findall(r"^\| (?!you expect|---).*\|$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip() for row in ROWS])
def test_each_row_says_what_others_have_and_what_is_here(row: list[str]) -> None:
    _, others, here = row
    assert others.strip()
    assert re.search(r"\*\*(yes|no|No|partly|not measured)\*\*|few", here), "no plain word"
    if "**yes**" in here:
        assert re.search(r"\]\([\w./#-]+\)|`[\w./ -]+`", here), "nothing shows it"


def test_what_the_page_names_is_there() -> None:
    assert [name for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE) if not (ROOT / name).exists()] == []


def test_policies_and_frameworks_are_as_many_as_it_says() -> None:
    assert len(POLICIES) == 14 and "fourteen policies" in PAGE
    assert len(get_args(Framework)) == 13 and "thirteen kinds of files" in PAGE
