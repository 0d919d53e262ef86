"""All figures, in the order in which they are made."""

from benchmarks.paper import (
    batching_gain,
    coupling,
    datasets,
    decoupling,
    delayed_batching,
    ensembles,
    failure,
    feedback_cache,
    latency_profiles,
    network,
    personalization,
    replicas,
    right_in_time,
    stragglers,
)

FIGURES = (
    datasets.FIGURE,
    latency_profiles.FIGURE,
    batching_gain.FIGURE,
    delayed_batching.FIGURE,
    replicas.FIGURE,
    network.FIGURE,
    ensembles.FIGURE,
    failure.FIGURE,
    stragglers.FIGURE,
    personalization.FIGURE,
    feedback_cache.FIGURE,
    coupling.FIGURE,
    decoupling.FIGURE,
    right_in_time.FIGURE,
)
