"""Clients of a Redis that must not lose confirmed writes: the extra ``clipper-serving[redis]``.

Redis must keep an append-only file: a write counts as stored once WAITAOF reports it on disk. With ``appendfsync
everysec`` that takes up to a second; with ``always``, as long as one write to the disk. And Redis must not evict keys
to make room for others.
"""

from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

# Redis answers in well under a millisecond. With ``appendfsync everysec`` it writes to its disk within little more than
# a second.
TIMEOUT_S = 2.5
DISK_TIMEOUT_S = 2.0


def open_client(url: str) -> Any:
    """Return a client that does not retry: a second try within a call would make the call last longer.

    Any: redis-py annotates each result for both its blocking and its asyncio client. Raises ValueError if the address
    is malformed.
    """
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


def open_async_client(url: str) -> Any:
    """Return a client for an event loop, which may repeat a command after an error. Raises ValueError as above."""
    return redis.asyncio.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)


def disk_wait() -> tuple[str, int, int, int]:
    """Return the command that waits until the writes of its own connection are on disk; see ``check_on_disk``."""
    return "WAITAOF", 1, 0, round(DISK_TIMEOUT_S * 1000)


def check_on_disk(reply: tuple[int, int]) -> None:
    """Check the reply to ``disk_wait``. Raises redis.TimeoutError if some of the writes are not on disk."""
    if not reply[0]:
        raise redis.TimeoutError(f"Redis did not write to disk within {DISK_TIMEOUT_S:g} s")


def why_it_evicts(memory: Mapping[str, Any]) -> str | None:
    """Return why this Redis may drop keys, from its ``INFO memory``; None if it does not."""
    policy, bound = str(memory.get("maxmemory_policy", "noeviction")), int(memory.get("maxmemory", 0))
    if policy == "noeviction" or not bound:
        return None
    return (
        f"it removes keys once it holds {bound} bytes (maxmemory-policy {policy}), whatever they are: set "
        "maxmemory-policy noeviction"
    )
