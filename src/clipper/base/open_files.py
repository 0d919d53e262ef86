"""The number of files and connections that a process may have open."""

import logging
import resource

log = logging.getLogger(__name__)

# A worker takes up to 10,000 connections, and each container needs some. Fewer than this are soon used up.
ENOUGH = 8192


def raise_limit() -> int:
    """Raise this process's limit as far as the system allows, and return it; log a warning if it is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = 2**31 if hard == resource.RLIM_INFINITY else hard
    if most < ENOUGH:
        log.warning(
            "this process may open %(limit)d files, and should be allowed %(count)d or more: see ulimit -Hn, or "
            "LimitNOFILE= of a service",
            {"limit": most, "count": ENOUGH},
        )
    return most
