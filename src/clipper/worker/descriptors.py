"""How many of a worker's file descriptors its clients get."""

from clipper.frontend.limits import MAX_CONNECTIONS, MAX_REFUSED_AT_ONCE

# Of all descriptors, what clients do not get: for the control channel, replicas, the store, other workers and logs.
# Without one left the worker could not answer its supervisor, which would take it for hung.
OWN_SHARE = 0.25
MIN_OWN = 64
MIN_CONNECTIONS = 8


def most_connections(descriptors: int) -> int:
    """How many connections clients may have where there are so many descriptors."""
    own = max(int(descriptors * OWN_SHARE), MIN_OWN)
    return min(max(descriptors - own - MAX_REFUSED_AT_ONCE, MIN_CONNECTIONS), MAX_CONNECTIONS)
