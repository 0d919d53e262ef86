"""All figures, in the order in which they are made."""

from benchmarks.paper import (
    decoupling,
    ensembles,
    failure,
    feedback_cache,
    latency_profiles,
    personalization,
    replicas,
    stragglers,
)

FIGURES = (
    latency_profiles.FIGURE,
    replicas.FIGURE,
    ensembles.FIGURE,
    failure.FIGURE,
    stragglers.FIGURE,
    personalization.FIGURE,
    feedback_cache.FIGURE,
    decoupling.FIGURE,
)
