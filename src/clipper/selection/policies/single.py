"""``single``: the application's one model answers, and is believed."""

from collections.abc import Mapping, Sequence
from random import Random

from clipper.errors import InvalidArgument
from clipper.selection.policies.policy import Combined, Outputs, Policy, State


class Single:
    """Asks the first linked model. Learns nothing, so its state is empty."""

    def select(self, models: Sequence[str], state: State, random: Random) -> Sequence[str]:
        return models[:1]

    def combine(self, models: Sequence[str], state: State, outputs: Outputs) -> Combined:
        """The model's own output; the one model that was asked agrees with itself, so the confidence is 1."""
        return Combined(outputs[models[0]], 1.0)

    def observe(self, state: State, outputs: Outputs, label: object) -> Mapping[str, float]:
        return {}


POLICIES: Mapping[str, type[Policy]] = {"single": Single}


def make_policy(name: str) -> Policy:
    """Make a policy by its name.

    Raises:
        InvalidArgument: there is no such policy.
    """
    try:
        return POLICIES[name]()
    except KeyError:
        raise InvalidArgument(f"policy {name!r} is not known: expected one of {', '.join(POLICIES)}") from None
