"""A user's own policy, held to the port: what it raises or wrongly returns becomes one error that names it."""

import math
from collections.abc import Mapping
from random import Random

from clipper.errors import PolicyFailed
from clipper.selection.learning.json_values import is_json
from clipper.selection.learning.totals import LOSS, OBSERVATIONS, PULLS, SCORED
from clipper.selection.policies.policy import Choice, Combined, Increments, Policy, Totals

# These are counted for every policy; one that added to them would falsify what is shown of its models.
RESERVED = frozenset({LOSS, OBSERVATIONS, PULLS, SCORED})


class Guarded(Policy):
    """Every method raises ``PolicyFailed`` where the policy raises, or returns what it may not.

    Clipper's own policies are not guarded: checking costs about as much as they do.
    """

    def __init__(self, policy: Policy, name: str) -> None:
        self.policy = policy
        self.name = name
        self.feedback = policy.feedback

    def select(self, models: tuple[str, ...], totals: Totals, context: str | None, random: Random) -> Choice:
        try:
            choice = self.policy.select(models, totals, context, random)
        except Exception as error:  # whatever a user's code raises is the user's to read
            raise self._raised("select", error) from error
        if not (isinstance(choice, Choice) and _is_choice(choice, models)):
            raise self._wrong("select", choice, f"a Choice of some of {', '.join(models)}, each with a share in [0, 1]")
        return choice

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals) -> Combined:
        try:
            combined = self.policy.combine(choice, outputs, totals)
        except Exception as error:  # as in select
            raise self._raised("combine", error) from error
        if not (isinstance(combined, Combined) and _is_answer(combined, outputs)):
            raise self._wrong("combine", combined, "a Combined with JSON text as bytes and a confidence in [0, 1]")
        return combined

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals) -> Increments:
        try:
            increments = self.policy.observe(choice, losses, totals)
        except Exception as error:  # as in select
            raise self._raised("observe", error) from error
        if not (isinstance(increments, Mapping) and all(map(_is_increment, increments.items()))):
            names = ", ".join(sorted(RESERVED))
            raise self._wrong(
                "observe", increments, f"a finite number by (model, name), no '/' in them, no name {names}"
            )
        return increments

    def _raised(self, method: str, error: Exception) -> PolicyFailed:
        return PolicyFailed(f"policy {self.name}: {method} raised {type(error).__name__}: {error}")

    def _wrong(self, method: str, returned: object, expected: str) -> PolicyFailed:
        return PolicyFailed(f"policy {self.name}: {method} returned {_shown(returned)}: expected {expected}")


def _is_choice(choice: Choice, models: tuple[str, ...]) -> bool:
    asked = choice.models
    return (
        isinstance(asked, tuple)
        and isinstance(choice.shares, tuple)
        and 0 < len(asked) == len(choice.shares) == len({model for model in models if model in asked})
        and all(map(_is_share, choice.shares))
    )


def _is_answer(combined: Combined, outputs: Mapping[str, bytes]) -> bool:
    output = combined.output
    if not (isinstance(output, bytes) and _is_share(combined.confidence)):
        return False
    return output in outputs.values() or is_json(output)


def _is_increment(item: tuple[object, object]) -> bool:
    key, amount = item
    if not (
        isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) and "/" not in part for part in key)
    ):
        return False
    return key[1] not in RESERVED and _is_number(amount) and abs(amount) < math.inf  # type: ignore[arg-type]


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Short, and whatever its own repr does."""
    try:
        return repr(value)[:200]
    except Exception:  # noqa: BLE001  a user's object may raise anything here, too
        return f"a {type(value).__name__}"
