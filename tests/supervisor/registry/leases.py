"""Registries in Redis that ask for the lease, for the tests of it."""

from collections.abc import Callable

from clipper.supervisor.registry.lease import Lease
from clipper.supervisor.registry.redis import RedisRegistry

DIGEST = "ab" * 32

Open = Callable[..., RedisRegistry]


def led(registry: RedisRegistry) -> Lease:
    outcome = registry.acquire()
    assert isinstance(outcome, Lease)
    return outcome
