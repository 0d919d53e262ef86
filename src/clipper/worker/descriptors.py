"""Shares a worker's file descriptors between its clients and itself."""

from clipper.worker.frontend.limits import MAX_CONNECTIONS, MAX_REFUSED_AT_ONCE

# Share of descriptors that clients do not get: for the control channel, replicas, the store, other workers and logs.
# Without a free one the worker could not answer its supervisor, which would take it for hung.
OWN_SHARE = 0.25
MIN_OWN = 64
MIN_CONNECTIONS = 8


def most_connections(descriptors: int) -> int:
    """Return how many client connections there is room for with this many descriptors."""
    own = max(int(descriptors * OWN_SHARE), MIN_OWN)
    return min(max(descriptors - own - MAX_REFUSED_AT_ONCE, MIN_CONNECTIONS), MAX_CONNECTIONS)
