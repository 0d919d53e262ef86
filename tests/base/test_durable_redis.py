import pytest
import redis

from clipper.base.durable_redis import check_on_disk, open_async_client, open_client, why_it_evicts
from clipper.base.masking import without_password


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://ada:hunter2@h:6379/0", "redis://h:6379/0"),
        ("redis://:p@ss@h/0", "redis://h/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis://:a://b@h/0", "redis://h/0"),
        ("redis:ada:hunter2@h/0", "h/0"),
        ("nonsense", "nonsense"),
    ],
)
def test_passwords_are_not_shown(url: str, expected: str) -> None:
    assert without_password(url) == expected


@pytest.mark.parametrize("open_one", [open_client, open_async_client])
@pytest.mark.parametrize("url", ["redis://h/0?socket_timeout=x", "http://h/0"])
def test_a_malformed_address_is_refused(url: str, open_one: object) -> None:
    assert callable(open_one)
    with pytest.raises(ValueError, match=r"."):
        open_one(url)


def test_a_disk_that_has_it() -> None:
    check_on_disk((1, 0))
    with pytest.raises(redis.TimeoutError, match="did not write to disk within 2 s"):
        check_on_disk((0, 0))


@pytest.mark.parametrize(
    ("memory", "evicts"),
    [
        ({"maxmemory": 0, "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory": 100, "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, False),
        ({"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}, True),
        ({"maxmemory": 100, "maxmemory_policy": "volatile-ttl"}, True),
        ({}, False),
    ],
)
def test_whether_it_drops_keys(memory: dict[str, object], evicts: bool) -> None:
    why = why_it_evicts(memory)
    assert (why is not None) == evicts
    assert why is None or "noeviction" in why
