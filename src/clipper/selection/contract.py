"""The contract of a user's own policy: each return value is checked, so that nothing else gets any further."""

import math
from collections.abc import Sequence

import msgspec

from clipper.errors import InvalidArgument
from clipper.selection.policies.policy import Choice, Combined, Outlook, Step

# Shares may miss a sum of 1 by this: rounding errors in single precision.
_ROUNDING = 1e-3

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


def checked_choice(choice: object, models: Sequence[str]) -> Choice:
    """Return ``choice`` in the application's order, with plain floats.

    Raises:
        InvalidArgument: it is not a choice among ``models``.
        TypeError, ValueError: the same, if its contents are of other types.
    """
    if not isinstance(choice, Choice) or not choice.models or len(choice.models) != len(choice.shares):
        raise InvalidArgument(f"it returned {choice!r}: expected a Choice of models, with a share for each")
    shares = {str(model): float(share) for model, share in zip(choice.models, choice.shares)}
    if shares.keys() - set(models) or len(shares) != len(choice.models):
        raise InvalidArgument(f"it chose {choice.models}: expected some of {models}, each once")
    _check_shares(choice, list(shares.values()))
    chosen = tuple(model for model in models if model in shares)
    return Choice(chosen, tuple(shares[model] for model in chosen), _checked_beliefs(choice, len(models)))


def _checked_beliefs(choice: Choice, models: int) -> tuple[tuple[float, float], ...] | None:
    """Check the beliefs of a policy that draws like ``Thompson``. Without them its share of 1 would mean certainty."""
    if choice.beliefs is None:
        return None
    beliefs = tuple((float(successes), float(failures)) for successes, failures in choice.beliefs)
    is_right = all(0.0 < parameter < math.inf for belief in beliefs for parameter in belief)
    if len(choice.models) != 1 or len(beliefs) != models or not is_right:
        raise InvalidArgument(
            f"it returned beliefs {choice.beliefs}: expected two numbers above 0 for each of the {models} models, "
            "and one chosen model"
        )
    return beliefs


def checked_further(further: object, choice: Choice, outlook: Outlook) -> Choice:
    """Return ``further`` with the models of ``choice`` first, then those of the other models that there is time for.

    Raises:
        InvalidArgument: it is not a choice of these models and others.
        TypeError, ValueError: as ``checked_choice``.
    """
    if not isinstance(further, Choice) or len(further.models) != len(further.shares):
        raise InvalidArgument(f"it returned {further!r}: expected None, or a Choice of models, with a share for each")
    shares = {str(model): float(share) for model, share in zip(further.models, further.shares)}
    before, others = set(choice.models), outlook.expected_s
    if not before <= shares.keys() <= before | others.keys() or len(shares) != len(further.models):
        raise InvalidArgument(
            f"it went on to {further.models}: expected {choice.models}, followed by some of {tuple(others)}, each once"
        )
    steps = tuple(map(_checked_step, further.steps))
    asked = [model for model in others if model in shares and outlook.has_time_for(model)]
    if not asked:
        return Choice(choice.models, choice.shares, choice.beliefs, steps=steps)
    _check_shares(further, list(shares.values()))
    models = (*choice.models, *asked)
    total = sum(shares[model] for model in models)
    if total <= 0:  # there is no time for any model with a share
        return Choice(models, (1.0 / len(models),) * len(models), steps=steps)
    return Choice(models, tuple(shares[model] / total for model in models), steps=steps)


def _checked_step(step: object) -> Step:
    if not isinstance(step, Step):
        raise InvalidArgument(f"it returned a step {step!r}: expected a Step")
    checked = Step(int(step.asked), float(step.confidence), float(step.probability))
    if not (checked.asked >= 1 and 0.0 <= checked.confidence <= 1.0 and 0.0 <= checked.probability <= 1.0):
        raise InvalidArgument(f"it returned {step}: expected at least 1 model, and numbers from 0 to 1")
    return checked


def checked_combined(combined: object) -> Combined:
    """Return ``combined`` with a plain float.

    Raises:
        InvalidArgument: it is not JSON text with a confidence.
        TypeError, ValueError, msgspec.DecodeError: the same.
    """
    if not isinstance(combined, Combined) or not isinstance(combined.output, bytes):
        raise InvalidArgument(f"it returned {combined!r}: expected a Combined of JSON text as bytes and a confidence")
    combined.output.decode()
    _check_json(combined.output)
    confidence = float(combined.confidence)
    if not 0.0 <= confidence <= 1.0:
        raise InvalidArgument(f"it returned a confidence of {combined.confidence!r}: expected 0 to 1")
    return Combined(combined.output, confidence)


def _check_shares(choice: Choice, shares: Sequence[float]) -> None:
    if len(shares) == 1:
        is_right = 0.0 < shares[0] <= 1.0 + _ROUNDING
    else:
        is_right = all(share >= 0.0 for share in shares) and math.isclose(sum(shares), 1.0, abs_tol=_ROUNDING)
    if not is_right:
        raise InvalidArgument(
            f"it returned shares {choice.shares}: expected a probability above 0 for one chosen model, or weights of "
            "several that add up to 1"
        )
