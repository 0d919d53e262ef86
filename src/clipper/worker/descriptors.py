"""File descriptors: how many a worker may have, and how many of them clients get."""

import logging
import resource

from clipper.frontend.limits import MAX_CONNECTIONS, MAX_REFUSED_AT_ONCE

log = logging.getLogger(__name__)

# A few thousand clients, with what the worker needs itself.
WANTED = 8192
# Of all descriptors, what clients do not get: for the control channel, replicas, the store, other workers and logs.
# Without one left the worker could not answer its supervisor, which would take it for hung.
OWN_SHARE = 0.25
MIN_OWN = 64
MIN_CONNECTIONS = 8


def raise_limit() -> int:
    """Allow this process as many descriptors as the system lets it have; return how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < WANTED:
        log.warning(
            "this process may open %d files, hence at most %d connections: raise the limit (ulimit -Hn, "
            "LimitNOFILE= of a service) to %d or more",
            hard,
            max_connections(hard),
            WANTED,
        )
    return hard


def max_connections(descriptors: int) -> int:
    """How many connections clients may have where there are so many descriptors."""
    own = max(int(descriptors * OWN_SHARE), MIN_OWN)
    return min(max(descriptors - own - MAX_REFUSED_AT_ONCE, MIN_CONNECTIONS), MAX_CONNECTIONS)
