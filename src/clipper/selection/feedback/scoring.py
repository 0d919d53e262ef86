"""What a piece of feedback is, and what it teaches."""

from collections.abc import Generator, Mapping
from hashlib import blake2b

from clipper.errors import InvalidArgument, PolicyFailed
from clipper.feedback import Feedback
from clipper.selection.learning.losses import Loss, loss_of_reward
from clipper.selection.learning.tally import Increments, tally
from clipper.selection.policies.combine import behind
from clipper.selection.policies.policy import Choice, Policy, Totals

# Of what a user's code said when it failed.
MAX_CHARACTERS = 300
# A sum's key is written with each observation.
MAX_NAME_LENGTH = 100
# Importance weights of models that are hardly ever asked stay far below, and sums of these far from a double's end.
MAX_AMOUNT = 1e15
# As wrong as a model can be.
NO_ANSWER_LOSS = 1.0
# In one step.
HASHED_BYTES = 1024 * 1024


def feedback_id(query_id: int | None, row: bytes, context: str | None, label: bytes) -> str:
    """The id of feedback whose sender gave none: feedback on the same thing, saying the same, is the same."""
    steps = feedback_id_in_steps(query_id, row, context, label)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return str(end.value)


def feedback_id_in_steps(
    query_id: int | None, row: bytes, context: str | None, label: bytes
) -> Generator[None, None, str]:
    """The same, in steps of a millisecond for a row of many."""
    if query_id is not None:
        return f"query-{query_id}"
    digest = blake2b(digest_size=16)
    for part in (row, (context or "").encode(), label):
        digest.update(len(part).to_bytes(8, "little"))
        for start in range(0, len(part), HASHED_BYTES):
            digest.update(memoryview(part)[start : start + HASHED_BYTES])
            yield
    return f"input-{digest.hexdigest()}"


def score(
    feedback: Feedback, loss: Loss, choice: Choice, outputs: Mapping[str, bytes], *, answer: bytes | None = None
) -> dict[str, float]:
    """The loss in [0, 1] of each model that has an output; under a reward, of the selected ones alone.

    A reward is for the answer, so it speaks of the models whose output that was: what another would have earned is
    not known, and that model is left out.

    A model that was selected and has none, though it was asked again for the feedback's sake, could not answer:
    were that to teach nothing, a policy would go on asking a model that hangs or always fails.

    Args:
        answer: what the models' outputs were combined to; None if that was none of theirs.

    Raises:
        InvalidArgument: the label or reward is not one that can be scored.
        PolicyFailed: the user's own loss failed.
    """
    if feedback.reward is not None:
        shared = loss_of_reward(feedback.reward)
        losses = {model: shared if model in outputs else NO_ANSWER_LOSS for model in choice.models}
        if answer is not None and len(losses) > 1:
            answered = behind(answer, {model: outputs[model] for model in losses if model in outputs})
            losses = {model: each for model, each in losses.items() if model in answered or model not in outputs}
        return losses
    if feedback.label is None:
        raise InvalidArgument('feedback has neither "label" nor "reward"')
    losses = {model: loss(output, feedback.label) for model, output in outputs.items()}
    return dict.fromkeys((model for model in choice.models if model not in outputs), NO_ANSWER_LOSS) | losses


def lesson(
    policy: Policy, choice: Choice, losses: Mapping[str, float], totals: Totals, *, is_reward: bool = False
) -> Increments:
    """What to add to a state: what is counted for every policy, and what this one adds.

    Args:
        is_reward: whether the losses are of a reward, which leaves out models that gave another output.

    Raises:
        PolicyFailed: the user's own policy raised, or returned no increments.
    """
    increments = tally(choice.models, losses)
    try:
        # A class of the user's that is no subclass of ours need not have it.
        observe = getattr(policy, "observe_reward", policy.observe) if is_reward else policy.observe
        for (model, name), amount in observe(choice, losses, totals).items():
            key = _checked_name(model), _checked_name(name)
            increments[key] = increments.get(key, 0.0) + _checked_amount(amount)
    except (Exception, SystemExit) as error:  # whatever a user's code raises or returns is the user's to read
        raise PolicyFailed(f"policy failed in observe: {type(error).__name__}: {error}"[:MAX_CHARACTERS]) from error
    return increments


def _checked_name(name: object) -> str:
    """A name that can be part of a sum's key in any store."""
    text = str(name)
    if "/" in text or not text.isprintable() or len(text) > MAX_NAME_LENGTH:
        raise InvalidArgument(
            f"it returned an increment of {text[:80]!r}: expected a name of up to "
            f"{MAX_NAME_LENGTH} printable characters without '/'"
        )
    return text


def _checked_amount(amount: float) -> float:
    """One that can be added to for ever: a single NaN or infinity would spoil a sum for good."""
    number = float(amount)
    if not abs(number) <= MAX_AMOUNT:
        raise InvalidArgument(f"it returned an increment by {amount!r}: expected a number up to {MAX_AMOUNT:g}")
    return number
