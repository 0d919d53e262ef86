"""What a selection policy is: which models to ask, how to make one answer of theirs, what feedback teaches.

The shape is that of the paper's Listing 2 (select, combine, observe), with one difference: a policy's state is a set of
named numbers, and ``observe`` returns increments to them, never a new state. Increments commute, so several
workers and machines can learn into one state by adding, and none of their feedback is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

State = Mapping[str, float]
Outputs = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Combined:
    """One answer. ``output`` is JSON text; ``confidence`` is in [0, 1]."""

    output: bytes
    confidence: float


class Policy(Protocol):
    """A stateless object; its parameters are validated when it is made."""

    def select(self, models: Sequence[str], state: State, random: Random) -> Sequence[str]:
        """Return which of ``models``, the application's, to ask: at least one of them."""
        ...

    def combine(self, models: Sequence[str], state: State, outputs: Outputs) -> Combined:
        """Make one answer.

        Args:
            models: those that were selected.
            outputs: JSON text by model, of those that answered in time; at least one.
        """
        ...

    def observe(self, state: State, outputs: Outputs, label: object) -> Mapping[str, float]:
        """Return what to add to the state's numbers, given the true ``label`` and what models had answered."""
        ...
