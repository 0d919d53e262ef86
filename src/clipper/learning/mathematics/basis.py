"""Chooses the evidence by which an application's models are compared, and names it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clipper.learning.mathematics.comparison import ModelEvidence, PooledEvidence
from clipper.learning.mathematics.confidence_sequences import NO_EVIDENCE, Evidence
from clipper.learning.mathematics.totals import EVER_SCORED, PICKED_SCORED, TELLS_PICKED, Totals
from clipper.learning.mathematics.weighing import WeighedEvidence, evidence_of

# ``pooled``: by the means of all losses. ``weighted``: by losses divided by the probabilities of choices. ``none``: the
# numbers for either are missing.
Estimator = Literal["pooled", "weighted", "none"]

# The rounding error of sums of many numbers.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Basis:
    """The evidence of a comparison, and its name.

    Attributes:
        feedback: the number of all pieces of feedback, compared or not.
        scored: how often each version was scored, by the state's names, whatever picked it.
        pooled: each version's losses, by the state's names, on queries where nothing that came with them picked it.
        evidence: the evidence by which the models are compared.
        why: a sentence on the estimator, and on the feedback that it leaves out.
    """

    feedback: float
    scored: Mapping[str, float]
    pooled: Mapping[str, Evidence]
    estimator: Estimator
    evidence: ModelEvidence
    why: str

    @property
    def compared(self) -> float:
        """The number of pieces of feedback that the comparison rests on."""
        return min(self.evidence.feedback, self.feedback)


def basis_of(
    totals: Totals, clock: float, names: Mapping[str, str], goes_by: str, *, is_of_context: bool, has_contexts: bool
) -> Basis:
    """Return a state's evidence on models.

    Args:
        totals: the state's totals, by its names for versions, without fading.
        clock: the number of pieces of feedback that the state has seen.
        names: the models to compare, and the state's names for their versions.
        goes_by: the present policy's ``Policy.goes_by``.
        has_contexts: whether the application has learned in any context; it matters unless ``tells_picked``.
    """
    scored = {key: amount for (key, name), amount in totals.numbers.items() if name == EVER_SCORED and amount > 0}
    every = sum(scored.values())
    # Each piece of feedback scores at least one model. The clock also counts feedback from before losses were kept.
    feedback, are_together = min(clock, every), every > clock * (1 + _ROUNDING)
    pooled = {key: totals.evidence(key) for key in scored}

    def basis(estimator: Estimator, evidence: ModelEvidence, why: str) -> Basis:
        return Basis(feedback, scored, pooled, estimator, evidence, why)

    weighed = WeighedEvidence(()) if is_of_context else evidence_of(totals.numbers, names)
    if weighed.feedback > 0:
        why = (
            "compared over all queries alike: choices depend on the query itself, such as its context, so each loss is "
            "divided by the probability of its choice"
        )
        if (left_out := feedback - weighed.feedback) >= 1:
            why += f"; {left_out:,.0f} pieces of feedback are left out: their queries had other versions or named one"
        if goes_by == "context":
            why += "; within one context it takes less feedback (clipper app report --by-context)"
        return basis("weighted", weighed, why)
    if is_of_context and goes_by == "query":
        return basis(
            "none",
            weighed,
            "not compared: in a context, too, the policy chooses by the query itself; see the report on all queries",
        )
    is_told = is_of_context or tells_picked(totals) or not feedback
    if not is_told and (has_contexts or goes_by == "query"):
        return basis(
            "none",
            weighed,
            f"not compared: the {feedback:,.0f} pieces of feedback so far came to an earlier version of Clipper, which "
            "did not keep the sums that a comparison needs if choices depend on the query itself",
        )
    evidence = {model: pooled.get(key, NO_EVIDENCE) for model, key in names.items()}
    compared = min(feedback, sum(each.count for each in evidence.values()))
    picked = sum(totals.number(key, PICKED_SCORED) for key in names.values())
    why = "compared by the means of all losses"
    if picked >= 1:
        why += (
            f"; {picked:,.0f} losses are left out: their queries named a version, or a context keeps the model of its "
            "first query"
        )
    return basis("pooled", PooledEvidence(evidence, compared, are_together), why)


def tells_picked(totals: Totals) -> bool:
    """Return whether an application's state has distinguished from its beginning what had picked models."""
    return totals.number("", TELLS_PICKED) > 0
