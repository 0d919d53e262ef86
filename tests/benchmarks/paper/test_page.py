"""The page on the paper's figures agrees with the checked-in results."""

import pytest

from benchmarks.harness.pages import PartMissing, fill
from benchmarks.paper import page
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES
from benchmarks.paper.results import read


def test_all_verdicts_and_numbers_are_those_of_the_results() -> None:
    """If this fails: ``python -m benchmarks.paper --page``."""
    text = page.PAGE.read_text()
    assert page.render(text, read(FIGURES)) == text


def test_each_picture_of_a_result_is_shown() -> None:
    text = page.PAGE.read_text()
    assert {*PICTURES} <= {figure.name for figure in FIGURES}
    shown = {name for name in PICTURES if f"(../benchmarks/paper/results/{name}.png)" in text}
    assert shown == {*PICTURES} & {*read(FIGURES)}


def test_a_page_has_a_place_for_each_part_and_no_other() -> None:
    text = "a\n<!-- results: one -->\nold\n<!-- end of results -->\nb\n"
    filled = fill(text, {"one": "new"})
    assert filled == "a\n<!-- results: one -->\n\nnew\n\n<!-- end of results -->\nb\n"
    assert fill(filled, {"one": "new"}) == filled
    for parts in ({}, {"one": "", "two": ""}):
        with pytest.raises(PartMissing):
            fill(text, parts)
