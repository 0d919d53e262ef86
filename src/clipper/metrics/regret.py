"""How much more an application's answers have lost than the best policy of the same kind of knowledge."""

from collections.abc import Collection
from typing import Literal

# What the answers are compared with: the best single model; or, if the policy learns by context, the best model of each
# context.
Against = Literal["model", "context"]


def regret(
    answer_loss: float, answers: int, context_loss: float, context_answers: int, means: Collection[float]
) -> tuple[Against, float] | None:
    """Return what the answers have lost more, and than what; None without feedback.

    Args:
        answer_loss: sum of the losses of the answers.
        answers: number of answers with feedback.
        context_loss: what the best model of each context would have lost on those of ``context_answers``.
        context_answers: how many of the answers are to queries with contexts by which the policy learns.
        means: each model's mean loss over all queries with feedback.
    """
    if not answers or not means:
        return None
    # Without a context, also such a policy knows no more than one that does not learn by context.
    reference = context_loss + (answers - context_answers) * min(means)
    return "context" if context_answers else "model", answer_loss - reference


def mean_of(scored: int, loss: float, weight: float, weighted_loss: float) -> float:
    """Return a model's mean loss over all queries with feedback: losses count by one over the probability that their
    query asked the model, where what came with the query picked it. An earlier version's worker does not weigh."""
    return weighted_loss / weight if weight > 0 else loss / scored
