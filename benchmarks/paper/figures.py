"""All figures, in the order in which they are made."""

from benchmarks.paper import (
    batching_gain,
    decoupling,
    delayed_batching,
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
    batching_gain.FIGURE,
    delayed_batching.FIGURE,
    replicas.FIGURE,
    ensembles.FIGURE,
    failure.FIGURE,
    stragglers.FIGURE,
    personalization.FIGURE,
    feedback_cache.FIGURE,
    decoupling.FIGURE,
)
