"""Counts that are kept for every policy, in addition to the policy's own."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from clipper.selection.learning.totals import (
    EVER_LOSS,
    EVER_SCORED,
    EVER_SPREAD,
    LOSS,
    MISSED,
    PICKED_LOSS,
    PICKED_SCORED,
    PICKED_SPREAD,
    PLAIN_LOSS,
    PLAIN_SCORED,
    PULLS,
    SCORED,
    Key,
)

# A value in a state, or an increment to it, by model and name: a number, or float64 of shape (n,).
Amount = float | NDArray[np.float64]
# What a policy adds, by model and name.
Increments = Mapping[tuple[str, str], Amount]
# What is added, by the same.
Keyed = Mapping[Key, Amount]

NONE_MISSED: Mapping[str, float] = MappingProxyType({})


def tally(
    selected: Collection[str],
    losses: Mapping[str, float],
    missed: Mapping[str, float] = NONE_MISSED,
    plain: Mapping[str, float] | None = None,
    *,
    is_picked: bool = False,
) -> dict[Key, float]:
    """Count one observation.

    Args:
        selected: the models that the query asked.
        losses: in [0, 1], of every model whose output was scored: of those, and of others that were asked for the
            feedback or as shadows.
        missed: how much each selected model counts as not having answered by the deadline, up to 1.
        plain: the losses without costs, if ``losses`` include costs.
        is_picked: whether the models were picked by what came with the query, so that means do not compare them.

    Returns:
        ``scored`` and ``loss`` of each model in ``losses``, also without fading and without costs; ``pulls`` and
        ``missed`` of the selected ones; ``plain_scored`` and ``plain_loss`` of each in ``plain``.
    """
    counts: dict[Key, float] = {}
    for model, loss in (plain or {}).items():
        counts[model, PLAIN_SCORED] = 1.0
        counts[model, PLAIN_LOSS] = loss
    for model, loss in losses.items():
        counts[model, SCORED] = counts[model, EVER_SCORED] = 1.0
        counts[model, LOSS] = loss
        # Models are compared by their losses, without costs.
        lost = loss if plain is None else plain[model]
        counts[model, EVER_LOSS] = lost
        if 0.0 < lost < 1.0:
            counts[model, EVER_SPREAD] = lost * (1.0 - lost)
        if is_picked:
            counts[model, PICKED_SCORED] = 1.0
            counts[model, PICKED_LOSS] = lost
            if 0.0 < lost < 1.0:
                counts[model, PICKED_SPREAD] = lost * (1.0 - lost)
        if model in selected:
            counts[model, PULLS] = 1.0
            if model in missed:
                counts[model, MISSED] = missed[model]
    return counts
