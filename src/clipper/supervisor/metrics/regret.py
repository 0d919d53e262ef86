"""How much more an application's answers have lost than the best policy of the same kind of knowledge."""

from typing import Literal

from clipper.control.statistics import ModelSelectionStatistics, SelectionStatistics

# What the answers are compared with: the best single model; or, if the policy learns by context, the best model of each
# context.
Against = Literal["model", "context"]


def regret(counted: SelectionStatistics | None) -> tuple[Against, float] | None:
    """Return what the answers have lost more, and than what; None without feedback."""
    means = [] if counted is None else [_mean_loss(each) for each in counted.models.values() if each.scored]
    if counted is None or not counted.answers_scored or not means:
        return None
    # Without a context, also a policy that learns by context knows no more than one that does not.
    without_context = counted.answers_scored - counted.context_answers
    reference = counted.context_loss + without_context * min(means)
    return "context" if counted.context_answers else "model", counted.answer_loss - reference


def _mean_loss(model: ModelSelectionStatistics) -> float:
    """Return a model's mean loss over all queries with feedback: losses count by one over the probability that their
    query asked the model, where what came with the query picked it. An earlier version's worker does not weigh."""
    return model.weighted_loss / model.weight if model.weight > 0 else model.loss / model.scored
