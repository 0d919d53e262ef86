"""The policy at work: what needs no asking, and what a user's own does wrong."""

from pathlib import Path
from random import Random

import pytest

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import PolicyFailed
from clipper.learning.mathematics.totals import Totals
from clipper.learning.own_code.watch import make as make_now
from clipper.learning.policies.policy import Choice, QueryView
from clipper.settings.application import Selection
from clipper.worker.selection.counts import ApplicationCounts
from clipper.worker.selection.selector import Selector

OWN = """
from clipper.learning.policies.policy import Choice, Policy
from clipper.learning.policies.thompson import Thompson

class Drawing(Thompson):
    pass

class Odd(Thompson):
    def select(self, models, totals, query, random):
        return Choice(models[:1], (1.0,), ((1.0, -1.0), (1.0, 1.0)))

class Broken(Policy):
    def select(self, models, totals, query, random):
        raise RuntimeError("no idea")

    def combine(self, choice, outputs, totals, query):
        return "an answer"
"""


def make(policy: str, code: Path | None = None) -> tuple[Selector, ApplicationCounts]:
    counts = ApplicationCounts()
    selection = Selection(policy=policy, code=str(code) if code else None)
    return Selector(ApplicationSnapshot("a", "float64[*]", 20.0, selection=selection), counts, make_now), counts


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own_policy_of_selector.py").write_text(OWN)
    return tmp_path


@pytest.mark.parametrize("policy", ["single", "exp3", "ensemble"])
def test_of_one_model_the_policy_would_select_what_is_the_only_choice(policy: str) -> None:
    selector, _ = make(policy)
    assert (
        selector.only_choice(("a",))
        == selector.select(("a",), Totals(), QueryView(), Random(0))
        == Choice(("a",), (1.0,))
    )
    assert selector.only_choice(("a", "b")) is None
    assert selector.only_choice(()) is None


@pytest.mark.parametrize(
    ("policy", "believes"), [("single", True), ("exp3", True), ("exp4", False), ("ensemble", False)]
)
def test_one_output_is_believed_where_the_policy_does_not_combine_itself(policy: str, believes: bool) -> None:
    selector, _ = make(policy)
    assert selector.believes_one is believes
    combined = selector.combine(Choice(("a",), (1.0,)), {"a": b"7"}, Totals(), QueryView())
    assert combined.output == b"7"
    assert combined.confidence == 1.0 or not believes


def test_a_policy_of_the_users_is_asked_and_what_it_does_wrong_is_counted(own: Path) -> None:
    selector, counts = make("own_policy_of_selector:Broken", own)
    assert selector.only_choice(("a",)) is None and not selector.believes_one
    with pytest.raises(PolicyFailed, match="failed in select: RuntimeError: no idea"):
        selector.select(("a",), Totals(), QueryView(), Random(0))
    with pytest.raises(PolicyFailed, match=r"failed in combine: .*expected a Combined"):
        selector.combine(Choice(("a",), (1.0,)), {"a": b"7"}, Totals(), QueryView())
    assert counts.policy_errors == 2 and "combine" in (counts.last_policy_error or "")


def test_a_policy_that_cannot_be_made_fails_each_query(own: Path) -> None:
    selector, counts = make("own_policy_of_selector:Missing", own)
    assert selector.only_choice(("a",)) is None and selector.no_totals is not None, "there is nothing to read for it"
    with pytest.raises(PolicyFailed, match="Missing"):
        selector.select(("a",), Totals(), QueryView(), Random(0))
    assert "Missing" in (counts.last_policy_error or "")


def test_what_a_policy_of_the_users_drew_by_stays_with_its_choice(own: Path) -> None:
    """Else its share of 1 would stand in the decision log for certainty."""
    selector, _ = make("own_policy_of_selector:Drawing", own)
    assert selector.select(("a", "b"), Totals(), QueryView(), Random(0)).beliefs == ((4.0, 4.0), (4.0, 4.0))
    selector, _ = make("own_policy_of_selector:Odd", own)
    with pytest.raises(PolicyFailed, match="expected two numbers above 0 for each of the 2 models"):
        selector.select(("a", "b"), Totals(), QueryView(), Random(0))
