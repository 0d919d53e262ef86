"""What is counted for every policy, whatever the policy counts itself."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from clipper.selection.learning.totals import EVER_LOSS, EVER_SCORED, EVER_SPREAD, LOSS, MISSED, PULLS, SCORED

# Of what a state holds by model and name, as of what is added to it: a number, or float64 of shape (n,).
Amount = float | NDArray[np.float64]
# What to add, by model and name.
Increments = Mapping[tuple[str, str], Amount]

NONE_MISSED: Mapping[str, float] = MappingProxyType({})


def tally(
    selected: Collection[str], losses: Mapping[str, float], missed: Mapping[str, float] = NONE_MISSED
) -> dict[tuple[str, str], float]:
    """Count one observation.

    Args:
        selected: the models that the query asked.
        losses: in [0, 1], of every model whose output was scored: of those, and of others that were asked for the
            feedback's sake or as shadows.
        missed: of the selected, how much each counts as not having answered by the deadline, up to 1.

    Returns:
        ``scored`` and ``loss`` of each model in ``losses``, as they fade and as they never do; ``pulls`` and ``missed``
        of those that were selected.
    """
    counts: dict[tuple[str, str], float] = {}
    for model, loss in losses.items():
        counts[model, SCORED] = counts[model, EVER_SCORED] = 1.0
        counts[model, LOSS] = counts[model, EVER_LOSS] = loss
        if 0.0 < loss < 1.0:
            counts[model, EVER_SPREAD] = loss * (1.0 - loss)
        if model in selected:
            counts[model, PULLS] = 1.0
            if model in missed:
                counts[model, MISSED] = missed[model]
    return counts
