"""Scores feedback, and computes its additions to the sums."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from clipper.control.feedback import Feedback
from clipper.errors import InvalidArgument, PolicyFailed
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.guardrail import Forecasts
from clipper.learning.mathematics.losses import Loss, loss_of_reward
from clipper.learning.mathematics.totals import NONE_MISSED, Amount, Key, Keyed, tally
from clipper.learning.policies.combine import behind
from clipper.learning.policies.policy import Choice, JudgedQuery, Policy, Totals

# The longest message of a failure in a user's code.
MAX_CHARACTERS = 300
# Each observation is written with the sum's key, which includes a model's name: a pinned MODEL:VERSION has up to 127
# characters.
MAX_NAME_LENGTH = 200
# Importance weights of rarely asked models stay far below this, and their sums far from a double's largest value.
MAX_AMOUNT = 1e15
# The largest array: 1.5 times what a linear policy keeps for a model with 64 features.
MAX_ARRAY = 4096
# The largest loss.
NO_ANSWER_LOSS = 1.0


def score(
    feedback: Feedback,
    loss: Loss,
    choice: Choice,
    outputs: Mapping[str, bytes],
    no_answer_loss: float = NO_ANSWER_LOSS,
    *,
    answer: bytes | None = None,
) -> dict[str, float]:
    """Return the loss in [0, 1] of each model with an output; for a reward, only of selected models.

    A reward is for the answer, so it applies to the models whose output that was. The reward that another
    output would have earned is unknown, so its model is left out.

    A selected model without an output has a loss, too: otherwise a hanging model would still be asked.

    Args:
        no_answer_loss: loss of what the user got instead of a selected model's output.
        answer: the combination of the models' outputs; None if the query got another answer.

    Raises InvalidArgument if the label or reward cannot be scored, and PolicyFailed if the user's own loss failed.
    """
    if feedback.reward is not None:
        shared = loss_of_reward(feedback.reward)
        losses = {model: shared if model in outputs else no_answer_loss for model in choice.models}
        if answer is not None and len(losses) > 1:
            answered = behind(answer, {model: outputs[model] for model in losses if model in outputs})
            losses = {model: each for model, each in losses.items() if model in answered or model not in outputs}
        return losses
    if feedback.label is None:
        raise InvalidArgument('feedback has neither "label" nor "reward": expected one of them')
    losses = {model: loss(output, feedback.label) for model, output in outputs.items()}
    return dict.fromkeys((model for model in choice.models if model not in outputs), no_answer_loss) | losses


def default_loss(feedback: Feedback, loss: Loss, default: bytes | None, *, was_answered: bool) -> float:
    """Return the loss of the default if the user got it instead of a model's output; else 1.

    A reward is for the answer, so it applies to the default only if that was the answer. Raises InvalidArgument like
    ``score``.
    """
    if default is None:
        return NO_ANSWER_LOSS
    if feedback.reward is not None:
        return loss_of_reward(feedback.reward) if was_answered else NO_ANSWER_LOSS
    if feedback.label is None:
        return NO_ANSWER_LOSS
    try:
        return loss(default, feedback.label)
    except PolicyFailed:
        # A user's loss need not handle a default, which is not a model's output.
        return NO_ANSWER_LOSS


def loss_of_answer(feedback: Feedback, loss: Loss, answer: bytes) -> float | None:
    """Return the loss of the answer that a query got from its models; None if the feedback does not tell."""
    if feedback.label is None:
        return None if feedback.reward is None else loss_of_reward(feedback.reward)
    return loss(answer, feedback.label)


def lesson(
    policy: Policy,
    choice: Choice,
    losses: Mapping[str, float],
    totals: Totals,
    query: JudgedQuery,
    missed: Mapping[str, float] = NONE_MISSED,
    *,
    is_reward: bool = False,
    is_picked: bool = False,
) -> Keyed:
    """Return the increments to a state: those for every policy, and this policy's own.

    Args:
        missed: how much each selected model counts as not having answered by the deadline.
        is_reward: whether the losses are from a reward, which leaves out models with another output.
        is_picked: see ``tally``.

    Raises PolicyFailed if the user's own policy raised, or did not return increments.
    """
    costs = totals.costs
    if costs.weight and policy.feedback == "selected":
        plain, losses = losses, {model: costs.priced(model, loss) for model, loss in losses.items()}
        counts = tally(choice.models, losses, missed, plain, is_picked=is_picked)
    else:
        # If all models are asked for every query, preferring a cheap one saves nothing.
        counts = tally(choice.models, losses, missed, is_picked=is_picked)
    increments: dict[Key, Amount] = {**counts}
    try:
        # A user's class need not be a subclass, and may lack the method.
        observe = getattr(policy, "observe_reward", policy.observe) if is_reward else policy.observe
        for (model, name), amount in observe(choice, losses, totals, query).items():
            key = _checked_name(model), _checked_name(name)
            known, added = increments.get(key, 0.0), _checked_amount(amount)
            if key in increments and isinstance(added, np.ndarray):
                raise InvalidArgument(f"it returned an array as {key[1]!r}, which is counted as a number")
            increments[key] = known + added
    except (Exception, SystemExit) as error:  # the user's code may raise anything; the user gets to read it
        raise PolicyFailed(f"policy failed in observe: {type(error).__name__}: {error}"[:MAX_CHARACTERS]) from error
    return increments


def shown_of_newcomers(
    arms: Arms,
    arms_now: Arms,
    forecasts: Forecasts,
    asked: Collection[str],
    loss: float,
    times: int = 1,
    excused: Collection[str] = (),
    matters: Callable[[str], bool] = lambda name: True,
) -> Keyed:
    """Return the additions of answers to the evidence on the newcomers of their time; none for ramps that have ended.

    Args:
        arms: the arms of the query.
        asked: the models that made the answers.
        excused: newcomers among ``asked`` that are late while they may be, so that the answers show nothing of them.
        matters: whether a newcomer matters to their query: see ``guardrail``.
    """
    shown: dict[Key, float] = {}
    part = [name for name in arms.ramps if name in asked]
    # An answer to which another newcomer contributed says nothing.
    for name in part or arms.ramps:
        if name not in excused and arms_now.ramps.get(name) == arms.ramps[name]:
            shown |= forecasts.observed(
                name, arms.ramps[name], loss, is_own=bool(part), times=times, matters=matters(name)
            )
    return shown


def _checked_name(name: object) -> str:
    """Check that a name can be part of a sum's key in any store."""
    text = str(name)
    if "/" in text or not text.isprintable() or len(text) > MAX_NAME_LENGTH:
        raise InvalidArgument(
            f"it returned an increment of {text[:80]!r}: expected a name of up to "
            f"{MAX_NAME_LENGTH} printable characters without '/'"
        )
    return text


def _checked_amount(amount: Amount) -> Amount:
    """Check that an amount can be added: a single NaN or infinity would ruin a sum for good."""
    if isinstance(amount, np.ndarray):
        array = amount.astype(np.float64)
        if array.ndim != 1 or not 1 <= len(array) <= MAX_ARRAY or not (np.abs(array) <= MAX_AMOUNT).all():
            raise InvalidArgument(
                f"it returned an increment by an array of shape {amount.shape}: expected one dimension of 1 to "
                f"{MAX_ARRAY} numbers, each up to {MAX_AMOUNT:g}"
            )
        return array
    number = float(amount)
    if not abs(number) <= MAX_AMOUNT:
        raise InvalidArgument(f"it returned an increment by {amount!r}: expected a number up to {MAX_AMOUNT:g}")
    return number
