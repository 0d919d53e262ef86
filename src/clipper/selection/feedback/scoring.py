"""What a piece of feedback is, and what it teaches."""

from collections.abc import Collection, Mapping

import numpy as np

from clipper.control.feedback import Feedback
from clipper.errors import InvalidArgument, PolicyFailed
from clipper.selection.learning.arms import Arms
from clipper.selection.learning.guardrail import Forecasts
from clipper.selection.learning.losses import Loss, loss_of_reward
from clipper.selection.learning.tally import NONE_MISSED, Amount, Increments, tally
from clipper.selection.policies.combine import behind
from clipper.selection.policies.policy import Choice, JudgedQuery, Policy, Totals

# Of what a user's code said when it failed.
MAX_CHARACTERS = 300
# A sum's key is written with each observation. A model's name is part of it: a pinned MODEL:VERSION has up to 127.
MAX_NAME_LENGTH = 200
# Importance weights of models that are hardly ever asked stay far below, and sums of these far from a double's end.
MAX_AMOUNT = 1e15
# Of an array: what a linear policy keeps of a model by 64 features, and again half of it.
MAX_ARRAY = 4096
# As wrong as a model can be.
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
    """The loss in [0, 1] of each model that has an output; under a reward, of the selected ones alone.

    A reward is for the answer, so it speaks of the models whose output that was: what another would have earned is
    not known, and that model is left out.

    A selected model without an output has lost, too: were that to teach nothing, one that hangs would go on being
    asked.

    Args:
        outputs: those that count.
        no_answer_loss: that of what the user got in place of a selected model's output.
        answer: what the models' outputs were combined to; None if that was none of theirs.

    Raises:
        InvalidArgument: the label or reward is not one that can be scored.
        PolicyFailed: the user's own loss failed.
    """
    if feedback.reward is not None:
        shared = loss_of_reward(feedback.reward)
        losses = {model: shared if model in outputs else no_answer_loss for model in choice.models}
        if answer is not None and len(losses) > 1:
            answered = behind(answer, {model: outputs[model] for model in losses if model in outputs})
            losses = {model: each for model, each in losses.items() if model in answered or model not in outputs}
        return losses
    if feedback.label is None:
        raise InvalidArgument('feedback has neither "label" nor "reward"')
    losses = {model: loss(output, feedback.label) for model, output in outputs.items()}
    return dict.fromkeys((model for model in choice.models if model not in outputs), no_answer_loss) | losses


def default_loss(feedback: Feedback, loss: Loss, default: bytes | None, *, was_answered: bool) -> float:
    """The loss of an application's default, where that is what the user got instead of a model's output; else 1.

    A reward is for what was answered, so it speaks of the default only if that was.

    Raises:
        InvalidArgument: as ``score``.
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
        # A user's loss need not know what to make of a default that is no model's output.
        return NO_ANSWER_LOSS


def loss_of_answer(feedback: Feedback, loss: Loss, answer: bytes) -> float | None:
    """How wrong the answer was that a query got from its models."""
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
) -> Increments:
    """What to add to a state: what is counted for every policy, and what this one adds.

    Args:
        missed: of the selected models, how much each counts as not having answered by the deadline.
        is_reward: whether the losses are of a reward, which leaves out models that gave another output.

    Raises:
        PolicyFailed: the user's own policy raised, or returned no increments.
    """
    costs = totals.costs
    if costs.weight and policy.feedback == "selected":
        plain, losses = losses, {model: costs.priced(model, loss) for model, loss in losses.items()}
        counts = tally(choice.models, losses, missed, plain)
    else:
        # Where all models are asked for every query, none of them saves anything by being preferred.
        counts = tally(choice.models, losses, missed)
    increments: dict[tuple[str, str], Amount] = {**counts}
    try:
        # A class of the user's that is no subclass of ours need not have it.
        observe = getattr(policy, "observe_reward", policy.observe) if is_reward else policy.observe
        for (model, name), amount in observe(choice, losses, totals, query).items():
            key = _checked_name(model), _checked_name(name)
            known, added = increments.get(key, 0.0), _checked_amount(amount)
            if key in increments and isinstance(added, np.ndarray):
                raise InvalidArgument(f"it returned an array as {key[1]!r}, which is counted as a number")
            increments[key] = known + added
    except (Exception, SystemExit) as error:  # whatever a user's code raises or returns is the user's to read
        raise PolicyFailed(f"policy failed in observe: {type(error).__name__}: {error}"[:MAX_CHARACTERS]) from error
    return increments


def shown_of_newcomers(
    arms: Arms, arms_now: Arms, forecasts: Forecasts, asked: Collection[str], loss: float, times: int = 1
) -> Increments:
    """What answers add to the evidence on the newcomers of their time; nothing to that of ramps which are over.

    Args:
        arms: those of the query.
        asked: the models that the answers were made by.
        loss: of each answer.
    """
    shown: dict[tuple[str, str], float] = {}
    part = [name for name in arms.ramps if name in asked]
    # An answer with another newcomer in it is no measure.
    for name in part or arms.ramps:
        if arms_now.ramps.get(name) == arms.ramps[name]:
            shown |= forecasts.observed(name, arms.ramps[name], loss, is_own=bool(part), times=times)
    return shown


def _checked_name(name: object) -> str:
    """A name that can be part of a sum's key in any store."""
    text = str(name)
    if "/" in text or not text.isprintable() or len(text) > MAX_NAME_LENGTH:
        raise InvalidArgument(
            f"it returned an increment of {text[:80]!r}: expected a name of up to "
            f"{MAX_NAME_LENGTH} printable characters without '/'"
        )
    return text


def _checked_amount(amount: Amount) -> Amount:
    """One that can be added to for ever: a single NaN or infinity would spoil a sum for good."""
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
