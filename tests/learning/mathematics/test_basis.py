"""By which evidence models are compared, and what is said of the feedback that it leaves out."""

from clipper.learning.mathematics.basis import Basis, basis_of
from clipper.learning.mathematics.comparison import PooledEvidence
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import TELLS_PICKED, tally
from clipper.learning.mathematics.weighing import weighed

NAMES = {"a": "a:1", "b": "b:1"}


def taught(*, picked: int = 0, plain: int = 0, weighs: bool = True, tells: bool = True) -> Ledger:
    """A state with so many pieces of feedback on the first model."""
    ledger = Ledger(None)
    for index in range(picked + plain):
        counts = tally(("a:1",), {"a:1": 1.0}, is_picked=index < picked)
        if index < picked and weighs:
            counts |= weighed({"a:1": 1.0}, {"a:1": 2.0}, "x", NAMES.values(), ledger.totals())
        if tells and not index:
            counts["", TELLS_PICKED] = 1.0
        ledger.add(ledger.entries(counts))
    return ledger


def basis(ledger: Ledger, goes_by: str = "context", *, of_context: bool = False, has_contexts: bool = True) -> Basis:
    return basis_of(ledger.totals(), ledger.clock, NAMES, goes_by, is_of_context=of_context, has_contexts=has_contexts)


def test_what_nothing_picked_is_pooled() -> None:
    found = basis(taught(plain=5))
    assert (found.estimator, found.feedback, found.compared) == ("pooled", 5.0, 5.0)
    assert found.evidence.count("a") == 5.0 and found.evidence.count("b") == 0.0
    assert found.why == "compared by the means of all losses"


def test_what_contexts_picked_is_weighed_and_what_came_before_is_left_out() -> None:
    found = basis(taught(picked=4, plain=3))
    assert (found.estimator, found.feedback, found.compared) == ("weighted", 7.0, 4.0)
    assert found.scored == {"a:1": 7.0} and found.pooled["a:1"].count == 3.0
    assert "--by-context" in found.why and "--by-context" not in basis(taught(picked=4), "query").why
    assert "divided by the probability" in found.why and "3 pieces of feedback are left out" in found.why


def test_earlier_losses_are_unknown_where_contexts_may_have_picked() -> None:
    old = taught(plain=5, tells=False)
    assert basis(old, has_contexts=False).estimator == "pooled"
    for found in (basis(old), basis(old, "nothing"), basis(old, "query", has_contexts=False)):
        assert (found.estimator, found.compared, found.feedback) == ("none", 0.0, 5.0)
        assert "the 5 pieces of feedback so far came to an earlier version" in found.why
    assert basis(Ledger(None)).estimator == "pooled", "nothing has come at all"


def test_a_context_is_compared_by_its_means_unless_more_than_it_picks() -> None:
    assert basis(taught(plain=5, tells=False), of_context=True).estimator == "pooled"
    found = basis(taught(picked=5, weighs=False), "query", of_context=True)
    assert (found.estimator, found.evidence.count("a")) == ("none", 0.0)


def test_queries_that_named_a_version_are_left_out() -> None:
    found = basis(taught(plain=5, picked=2, weighs=False))
    assert (found.estimator, found.compared, found.feedback) == ("pooled", 5.0, 7.0)
    assert "2 losses are left out" in found.why


def test_models_that_were_asked_together_may_depend_on_each_other() -> None:
    ledger = Ledger(None)
    for _ in range(3):
        ledger.add(ledger.entries(tally(("a:1", "b:1"), {"a:1": 1.0, "b:1": 0.0})))
    apart, together = basis(taught(plain=3)), basis(ledger, has_contexts=False)
    for basis_found, are_together in ((apart, False), (together, True)):
        assert isinstance(basis_found.evidence, PooledEvidence)
        assert basis_found.evidence.are_together is are_together
    assert together.compared == 3.0
