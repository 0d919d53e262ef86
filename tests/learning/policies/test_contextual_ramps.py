"""The fate of newcomers under policies that choose by context."""

import pytest

from tests.learning.policies.contextual_ramps import NEW, play

pytestmark = pytest.mark.long

# The newcomer is the best model in one of two contexts, and by far the worst in the other.
BEST_IN_ONE = {"x": {"a": 0.4, "b": 0.6, NEW: 0.05}, "y": {"a": 0.3, "b": 0.008, NEW: 0.758}}
BAD = {"x": {"a": 0.4, "b": 0.6, NEW: 0.9}, "y": {"a": 0.3, "b": 0.008, NEW: 0.758}}


@pytest.mark.parametrize("policy", ["exp3", "thompson", "adaptive"])
@pytest.mark.parametrize("before", [None, "a"])
def test_one_that_is_best_in_a_context_is_let_through(policy: str, before: str | None) -> None:
    found = [play(policy, BEST_IN_ONE, seed, before=before) for seed in range(4)]
    assert [each.verdict for each in found] == ["through"] * 4
    # By its mean everywhere it would be worse than is allowed; a run that ends soon shows that only by chance.
    everywhere = [each.evidence.everywhere for each in found]
    assert sum(each.newcomer.mean - each.rest.mean for each in everywhere) > 0.05 * len(everywhere)


@pytest.mark.parametrize("policy", ["exp3", "thompson", "adaptive"])
@pytest.mark.parametrize("before", [None, "a"])
def test_one_that_is_bad_in_every_context_is_stopped_soon(policy: str, before: str | None) -> None:
    found = [play(policy, BAD, seed, before=before) for seed in range(4)]
    assert [each.verdict for each in found] == ["stopped"] * 4
    assert max(each.evidence.everywhere.newcomer.count for each in found) < 100


def test_a_successor_of_a_version_that_a_context_needs_is_not_let_through() -> None:
    """Once it is through, queries of y have only a, which errs 60 %, where they had b, which hardly errs."""
    errors = {"x": {"a": 0.4, "b": 0.6, NEW: 0.05}, "y": {"a": 0.6, "b": 0.008, NEW: 0.9}}
    verdicts = {play("thompson", errors, seed, before="b").verdict for seed in range(3)}
    assert "through" not in verdicts and "stopped" in verdicts
