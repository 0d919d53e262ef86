"""A registry in a Redis that others use, too: what they write there, take away, and leave no room for."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from clipper.base.known_ids import Known
from clipper.errors import ClipperError, NotLeader, RegistryUnavailable
from clipper.supervisor.registry import redis as redis_registry
from clipper.supervisor.registry.lease import Lease
from clipper.supervisor.registry.redis import PREFIX, RedisRegistry
from clipper.supervisor.registry.shared import REGISTRY_ID_NAME, Away, Holder, Leader, Renewed
from clipper.supervisor.registry.store import Put
from tests.redis_server import RedisServer
from tests.supervisor.registry.leases import DIGEST, Open, led
from tests.supervisor.registry.registry_records import APPLICATION, TOKEN


def test_a_redis_that_drops_keys_is_no_registry(own_server: RedisServer, opened: Open) -> None:
    command = ["redis-cli", "-p", str(own_server.port), "config", "set"]
    for name, value in (("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")):
        subprocess.run([*command, name, value], check=True, capture_output=True)
    with pytest.raises(RegistryUnavailable, match=r"allkeys-lru.*noeviction"):
        opened(own_server).acquire()


def test_a_redis_without_room_refuses_changes_and_leads_on(own_server: RedisServer, opened: Open) -> None:
    registry = opened(own_server)
    lease = led(registry)
    registry.write(Put(TOKEN))
    command = ["redis-cli", "-p", str(own_server.port), "config", "set", "maxmemory"]
    subprocess.run([*command, "1mb"], check=True, capture_output=True)
    with pytest.raises(RegistryUnavailable, match=r"maxmemory"):
        registry.write(Put(APPLICATION))
    assert (registry.load().tokens, registry.load().applications) == ((TOKEN,), ())
    assert registry.doubt is None and lease.why_lost is None
    assert isinstance(registry.renew(is_ready=True), Away | Renewed)
    subprocess.run([*command, "0"], check=True, capture_output=True)
    assert isinstance(registry.renew(is_ready=True), Renewed)
    registry.write(Put(APPLICATION))
    assert registry.load().applications == (APPLICATION,)


def test_an_epoch_that_somebody_else_has_changed_ends_the_lease(
    server: RedisServer, opened: Open, client: Redis
) -> None:
    for epoch in ("5", "-1", "1e3", "text"):
        client.flushall()
        registry = opened(server)
        led(registry)
        client.hset(PREFIX + "lease", "epoch", epoch)
        assert not isinstance(registry.renew(is_ready=True), Renewed), epoch
        with pytest.raises((NotLeader, RegistryUnavailable)):
            registry.write(Put(TOKEN))
        assert registry.load().tokens == ()


def test_an_epoch_is_above_all_before_whoever_has_removed_the_counter(
    server: RedisServer, opened: Open, client: Redis
) -> None:
    registry = opened(server)
    led(registry)
    client.delete(PREFIX + "counters")
    assert led(registry).epoch == 2
    client.hset(PREFIX + "lease", "epoch", "41")
    assert led(registry).epoch == 42
    assert led(registry).epoch == 43


@pytest.mark.parametrize("counted", ["123456789", "1000000000000000", "9000000000000000"])
def test_a_counter_that_somebody_else_has_set_counts_on(
    server: RedisServer, opened: Open, client: Redis, counted: str
) -> None:
    registry = opened(server)
    led(registry)
    client.hset(PREFIX + "counters", "start", counted)
    assert registry.reserve("start", 100) == int(counted) + 1


@pytest.mark.parametrize("counted", ["text", "1.5", "9223372036854775807", ""])
def test_a_counter_that_does_not_count_is_an_error_in_words(
    server: RedisServer, opened: Open, client: Redis, counted: str
) -> None:
    registry = opened(server)
    led(registry)
    client.hset(PREFIX + "counters", "start", counted)
    with pytest.raises(RegistryUnavailable):
        registry.reserve("start", 100)


def test_a_redis_that_was_started_again_empty_is_not_written_to(tmp_path: Path, opened: Open) -> None:
    with RedisServer(tmp_path) as server:
        server.start()
        registry = opened(server)
        led(registry)
        registry.write(Put(TOKEN))
        server.kill()
        shutil.rmtree(tmp_path / "appendonlydir")
        server.start()
        assert isinstance(outcome := registry.renew(is_ready=True), Leader) and outcome.epoch == 0
        with pytest.raises(NotLeader, match="lost what it stored"):
            registry.write(Put(APPLICATION))
        # To lead it would end all applications.
        assert isinstance(away := registry.acquire(), Away) and "was emptied" in away.why
        assert registry.load().tokens == ()
        fresh = opened(server, "fresh")
        led(fresh)
        assert isinstance(registry.acquire(), Away)


def test_which_registry_was_known_is_kept_for_the_next_start(
    server: RedisServer, opened: Open, client: Redis, tmp_path: Path
) -> None:
    path = tmp_path / REGISTRY_ID_NAME

    def acquire(known: Known) -> object:
        with closing(RedisRegistry(server.url, Holder("b", "http://b"), known=known)) as registry:
            return registry.acquire()

    leader = opened(server, "a")
    led(leader)
    # A standby knows it, too.
    assert isinstance(acquire(Known(path)), Leader)
    assert path.read_text() == f"{server.url} {leader.id}\n"
    client.flushall()
    assert isinstance(acquire(Known(path)), Away)
    assert client.keys(PREFIX + "*") == []
    path.write_text(f"redis://elsewhere/0 {leader.id}\n")
    assert isinstance(acquire(Known(path)), Lease)
    for garbage in (b"", b"\xff", b"one two three"):
        path.write_bytes(garbage)
        assert isinstance(acquire(Known(path)), Lease)
    path.unlink()
    path.mkdir()
    assert isinstance(acquire(Known(path)), Lease)


PIECE = f"artifact:{DIGEST}:0"
# Calls that ask for the lease, and calls that the leader alone may make.
SEEK = {"acquire", "look", "acquire again"}
LEAD = {"renew", "write", "reserve", "secret", "complete", "remove"}
# By key, its type in Redis and the calls that use what it holds: those that cannot where it has another type.
USED_BY: dict[str, tuple[str, set[str]]] = {
    "schema": ("string", SEEK),
    "id": ("string", SEEK),
    "lease": ("hash", SEEK | LEAD | {"release"}),
    "held": ("string", set()),
    "standby": ("string", set()),
    "applications": ("hash", {"load"}),
    "models": ("hash", {"load"}),
    "versions": ("hash", {"load"}),
    "tokens": ("hash", {"load", "write"}),
    "keys": ("hash", {"load"}),
    "to_forget": ("set", {"load"}),
    "counters": ("hash", {"reserve", "acquire again"}),
    "secrets": ("hash", {"secret"}),
    "artifacts": ("hash", {"sizes", "admit", "complete", "remove"}),
    PIECE: ("string", {"get"}),
}
# Values that are of the right type, or gone, and of no use either: a schema that is no number or newer, an id that is
# no text and so never the known one, a lease that is nobody's or another's, a piece that is missing.
USELESS: dict[tuple[str, str], set[str]] = {
    ("schema", "text"): SEEK,
    ("schema", "number"): SEEK,
    ("id", "text"): {"look"},
    ("lease", "hash"): LEAD,
    ("lease", "huge"): LEAD,
    ("lease", "nothing"): LEAD,
    ("held", "nothing"): LEAD,
    (PIECE, "nothing"): {"get"},
}
# Something else may put these in place of a key: the type of the value, and how it gets there.
SPOILERS: dict[str, tuple[str, Callable[[Redis, str], object]]] = {
    "text": ("string", lambda client, key: client.set(key, b"\xff garbage")),
    "number": ("string", lambda client, key: client.set(key, "999999999999999999999999")),
    "list": ("list", lambda client, key: client.rpush(key, "x")),
    "hash": (
        "hash",
        lambda client, key: client.hset(key, mapping={b"\xff": b"\xff", "epoch": "nan", "since": "yesterday"}),
    ),
    "set": ("set", lambda client, key: client.sadd(key, b"\xff")),
    "huge": ("hash", lambda client, key: client.hset(key, "x" * 1_000_000, "y" * 1_000_000)),
    "nothing": ("none", lambda client, key: None),
}


def who_cannot(key: str, spoiler: str) -> set[str]:
    """The calls that are refused."""
    kind, users = USED_BY[key]
    if SPOILERS[spoiler][0] in (kind, "none"):
        return USELESS.get((key, spoiler), set())
    return users


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """It waits for no disk, and whoever asks it does not."""
    with RedisServer(tmp_path_factory.mktemp("hasty")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_registry, "_sync", lambda connection: None)
        server.start("--appendonly", "no")
        yield server


@pytest.mark.parametrize("spoiler", SPOILERS)
@pytest.mark.parametrize("key", USED_BY)
def test_whatever_is_in_place_of_a_key_refuses_only_the_calls_that_use_it(
    hasty_server: RedisServer, opened: Open, key: str, spoiler: str
) -> None:
    """With an error that the supervisor knows: no call raises another one, whatever it finds."""
    server, client = hasty_server, Redis(port=hasty_server.port)
    client.flushall()
    registry, other = opened(server, "a"), opened(server, "b")
    led(registry)
    registry.write(Put(APPLICATION))
    registry.put_piece(DIGEST, 0, b"x")
    registry.complete_artifact(DIGEST, 1)
    client.delete(PREFIX + key)
    SPOILERS[spoiler][1](client, PREFIX + key)
    calls: dict[str, Callable[[], object]] = {
        "acquire": other.acquire,
        "look": lambda: other.acquire(takes=False),
        "renew": lambda: registry.renew(is_ready=True),
        "load": registry.load,
        "sizes": registry.artifact_sizes,
        "admit": lambda: registry.admit_artifact(10),
        "get": lambda: registry.get_piece(DIGEST, 0),
        "put": lambda: registry.put_piece(DIGEST, 0, b"x"),
        "write": lambda: registry.write(Put(TOKEN)),
        "reserve": lambda: registry.reserve("replica", 1),
        "secret": lambda: registry.secret("x", b"made"),
        "complete": lambda: registry.complete_artifact(DIGEST, 1),
        "remove": lambda: registry.remove_artifact(DIGEST),
        "release": registry.release,
        "acquire again": lambda: opened(server, "c").acquire(),
    }
    outcomes = {name: outcome_of(call) for name, call in calls.items()}
    refused = {name for name, outcome in outcomes.items() if isinstance(outcome, ClipperError | Away)}
    if isinstance(outcomes["renew"], Leader):
        refused.add("renew")
    assert refused == who_cannot(key, spoiler), outcomes
    # While the first one holds the lease nobody else gets it, and after that one does.
    led_by = [name for name, outcome in outcomes.items() if isinstance(outcome, Lease)]
    first = [] if key == "lease" or "acquire again" in refused else ["acquire again"]
    assert led_by == (["acquire"] if (key, spoiler) == ("held", "nothing") else first), outcomes
    client.close()


def outcome_of(call: Callable[[], object]) -> object:
    try:
        return call()
    except (NotLeader, RegistryUnavailable) as error:
        return error
