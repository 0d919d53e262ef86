"""Tests for the registry in Redis alone: the lease, the fence of changes, artifacts, and a Redis that is away."""

import asyncio
import os
import signal
import subprocess
import threading
from asyncio import run
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from clipper.base import durable_redis
from clipper.errors import NotLeader, RegistryUnavailable, TooLarge
from clipper.supervisor.registry import shared as shared_registry
from clipper.supervisor.registry.lease import Lease, LeaseTimes
from clipper.supervisor.registry.redis import PREFIX, RedisRegistry
from clipper.supervisor.registry.shared import PIECE_BYTES, Away, Holder, Leader, Renewed
from clipper.supervisor.registry.store import SCHEMA_VERSION, Put
from tests.event_loops import run_clean, turn_over
from tests.redis_server import RedisServer
from tests.supervisor.registry.leases import DIGEST, Open, led
from tests.supervisor.registry.registry_records import APPLICATION, TOKEN
from tests.waiting import TIMEOUT_S, until, until_async

# Long over when the next request comes.
SHORT = LeaseTimes(duration_s=0.001)


def test_one_leads_and_the_other_learns_who(server: RedisServer, opened: Open) -> None:
    a, b = opened(server, "a"), opened(server, "b")
    assert led(a).epoch == 1
    outcome = b.acquire()
    assert isinstance(outcome, Leader)
    assert (outcome.epoch, outcome.address, outcome.is_ready) == (1, "http://a", False)
    assert outcome.since > 1.7e9
    assert a.renew(is_ready=True) == Renewed("http://b")
    assert isinstance(outcome := b.acquire(), Leader) and outcome.is_ready
    assert b.lease is None and b.id == ""
    assert a.id and len(a.id) == 16


def test_of_many_that_ask_at_once_one_gets_it(server: RedisServer, opened: Open) -> None:
    registries = [opened(server, f"home-{index}") for index in range(16)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda registry: registry.acquire(), registries))
    assert [type(outcome) for outcome in outcomes].count(Lease) == 1


def test_who_has_it_gets_it_again_at_once_with_a_new_epoch(server: RedisServer, opened: Open) -> None:
    """A supervisor that was killed and is started again in its home does not wait for its own lease to end."""
    before, after = opened(server), opened(server)
    assert led(before).epoch == 1
    assert led(after).epoch == 2
    assert after.id == before.id
    with pytest.raises(NotLeader):
        before.write(Put(TOKEN))


def test_a_lease_that_is_given_back_is_free(server: RedisServer, opened: Open) -> None:
    a, b = opened(server, "a"), opened(server, "b")
    led(a)
    assert isinstance(b.acquire(), Leader)
    a.release()
    assert led(b).epoch == 2
    assert b.renew(is_ready=True) == Renewed(None)
    a.release()  # it is another's by now
    assert isinstance(opened(server, "c").acquire(), Leader)


def test_changes_of_an_older_epoch_are_refused_and_change_nothing(server: RedisServer, opened: Open) -> None:
    old, new = opened(server, "old", SHORT), opened(server, "new")
    led(old)
    old.write(Put(APPLICATION))
    numbers = old.reserve("replica", 5)
    led(until(lambda: new if isinstance(new.acquire(), Lease) else None))
    with pytest.raises(NotLeader, match=r"http://new.*nothing was changed"):
        old.write(Put(TOKEN))
    assert old.lease is not None and old.lease.why_lost is not None
    # It does not ask any more.
    for change in (lambda: old.write(Put(TOKEN)), lambda: old.reserve("replica", 1)):
        with pytest.raises(NotLeader):
            change()
    assert isinstance(old.renew(is_ready=True), Leader)
    assert (new.load().applications, new.load().tokens) == ((APPLICATION,), ())
    assert new.reserve("replica", 1) == numbers + 5


def test_a_lease_that_ended_goes_on_if_nobody_else_took_it(server: RedisServer, opened: Open, client: Redis) -> None:
    """Redis was away for longer than the lease, and nothing has changed meanwhile."""
    a = opened(server, "a")
    led(a)
    client.delete(PREFIX + "held")
    assert a.renew(is_ready=False) == Renewed(None)
    assert isinstance(opened(server, "b").acquire(), Leader)
    client.delete(PREFIX + "held")
    a.write(Put(TOKEN))
    assert isinstance(opened(server, "b").acquire(), Leader)


def test_a_redis_that_has_lost_everything_has_no_leader(server: RedisServer, opened: Open, client: Redis) -> None:
    a = opened(server, "a")
    led(a)
    client.flushall()
    assert isinstance(outcome := a.renew(is_ready=True), Leader) and outcome.epoch == 0
    with pytest.raises(NotLeader, match="lost what it stored"):
        a.write(Put(TOKEN))


def test_who_does_not_lead_changes_nothing(server: RedisServer, opened: Open) -> None:
    registry = opened(server)
    with pytest.raises(NotLeader):
        registry.write(Put(TOKEN))
    assert registry.load().tokens == ()


def test_a_newer_schema_is_refused_and_left_alone(server: RedisServer, opened: Open, client: Redis) -> None:
    client.set(PREFIX + "schema", SCHEMA_VERSION + 1)
    with pytest.raises(RegistryUnavailable, match=rf"schema version {SCHEMA_VERSION + 1}.*newer"):
        opened(server).acquire()
    assert client.keys(PREFIX + "*") == [(PREFIX + "schema").encode()]


def test_an_older_schema_is_kept_as_it_was(server: RedisServer, opened: Open, client: Redis) -> None:
    registry = opened(server)
    led(registry)
    registry.write(Put(TOKEN))
    client.set(PREFIX + "schema", SCHEMA_VERSION - 1)
    led(registry)
    registry.write(Put(APPLICATION))
    assert client.get(PREFIX + "schema") == str(SCHEMA_VERSION).encode()
    kept = f"{PREFIX}schema-{SCHEMA_VERSION - 1}:"
    assert client.hkeys(kept + "tokens") == [b"ci"]
    assert not client.exists(kept + "applications")


def test_without_an_append_only_file_nobody_leads(tmp_path: Path, opened: Open) -> None:
    with RedisServer(tmp_path) as server:
        server.start("--appendonly", "no")
        with pytest.raises(RegistryUnavailable, match="appendonly yes"):
            opened(server).acquire()


def test_passwords_are_asked_for_and_not_shown(tmp_path: Path, opened: Open) -> None:
    with RedisServer(tmp_path) as server:
        server.start()
        command = ["redis-cli", "-p", str(server.port), "config", "set", "requirepass", "hunter2"]
        subprocess.run(command, check=True, capture_output=True)
        with pytest.raises(RegistryUnavailable, match="authenticate"):
            opened(server).acquire()
        url = server.url.replace("//", "//:hunter3@")
        with (
            closing(RedisRegistry(url, Holder("a", "http://a"))) as registry,
            pytest.raises(RegistryUnavailable) as raised,
        ):
            registry.acquire()
    assert "hunter" not in str(raised.value) + registry.shown_address


def test_while_redis_is_away_changes_are_refused_at_once_and_then_go_on(own_server: RedisServer, opened: Open) -> None:
    registry, other = opened(own_server, "a"), opened(own_server, "b")
    lease = led(registry)
    registry.write(Put(TOKEN))
    own_server.kill()
    with pytest.raises(RegistryUnavailable, match=r"cannot be used.*nothing was changed"):
        registry.write(Put(APPLICATION))
    assert lease.silent_since_s is not None
    assert isinstance(other.acquire(), Away)
    assert isinstance(registry.renew(is_ready=True), Away)
    own_server.start()
    # Nothing is sent before a renewal was answered.
    with pytest.raises(RegistryUnavailable):
        registry.write(Put(APPLICATION))
    assert isinstance(registry.renew(is_ready=True), Renewed)
    lease.confirm(0.0)
    registry.write(Put(APPLICATION))
    assert registry.doubt is None
    assert (registry.load().tokens, registry.load().applications) == ((TOKEN,), (APPLICATION,))


def test_a_change_without_an_answer_is_in_doubt(
    own_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine Redis has to answer by then before it is stopped.
    monkeypatch.setattr(durable_redis, "TIMEOUT_S", 1.5)
    registry = opened(own_server)
    led(registry)
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RegistryUnavailable, match="may have been made or not"):
        registry.write(Put(TOKEN))
    assert registry.doubt is not None
    assert registry.lease is not None and registry.lease.silent_since_s is not None


def test_a_disk_that_does_not_write_leaves_a_change_in_doubt(
    own_server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = opened(own_server)
    led(registry)
    # With appendfsync no, nothing is written to the disk for half a minute.
    port = str(own_server.port)
    subprocess.run(["redis-cli", "-p", port, "config", "set", "appendfsync", "no"], check=True, capture_output=True)
    monkeypatch.setattr(durable_redis, "DISK_TIMEOUT_S", 0.01)
    registry.write(Put(TOKEN))
    with pytest.raises(RegistryUnavailable, match=r"did not write to disk.*may have been made or not"):
        run(registry.sync())
    assert registry.doubt is not None
    with pytest.raises(RegistryUnavailable, match="nothing was changed"):
        registry.write(Put(TOKEN))


def test_all_changes_that_wait_for_the_disk_wait_once_beside_the_loop(
    server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them held up the supervisor's loop for a second or two."""
    registry = opened(server)
    led(registry)
    waits: list[int] = []
    written = threading.Event()
    wait_for_disk = registry._wait_for_disk

    def wait(names: Sequence[str]) -> int:
        waits.append(len(names))
        assert written.wait(TIMEOUT_S)
        return wait_for_disk(names)

    monkeypatch.setattr(registry, "_wait_for_disk", wait)

    async def change() -> None:
        registry.write(Put(TOKEN))
        await registry.sync()

    async def steps() -> None:
        await registry.sync()  # there is nothing to wait for
        first = asyncio.create_task(change())
        await until_async(lambda: waits == [1])
        later = [asyncio.create_task(change()) for _ in range(10)]
        await turn_over()
        assert not first.done() and not any(each.done() for each in later)
        written.set()
        await asyncio.gather(first, *later)
        assert waits == [1, 10]

    run_clean(steps())


def test_a_redis_that_has_forgotten_a_change_is_noticed(server: RedisServer, opened: Open, client: Redis) -> None:
    """It was started again before its disk had the change."""
    registry = opened(server)
    led(registry)
    registry.write(Put(TOKEN))
    registry.write(Put(APPLICATION))
    client.delete(*client.keys(f"{PREFIX}change:*")[:1])
    with pytest.raises(RegistryUnavailable, match=r"lost 1 changes.*may have been made or not"):
        run(registry.sync())
    assert registry.doubt is not None
    with pytest.raises(RegistryUnavailable, match="lost 1 changes"):
        run(registry.sync())


def test_changes_that_redis_refuses_to_wait_for_are_waited_for_again(own_server: RedisServer, opened: Open) -> None:
    registry = opened(own_server)
    led(registry)
    registry.write(Put(TOKEN))
    redis_cli = ["redis-cli", "-p", str(own_server.port), "config", "set", "appendonly"]
    subprocess.run([*redis_cli, "no"], check=True, capture_output=True)
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="appendonly"):
            run(registry.sync())
    assert registry.doubt is None
    subprocess.run([*redis_cli, "yes"], check=True, capture_output=True)
    run(registry.sync())


def test_an_artifact_comes_back_in_its_pieces(server: RedisServer, opened: Open, client: Redis) -> None:
    registry = opened(server)
    led(registry)
    tar = os.urandom(PIECE_BYTES + 1000)
    registry.admit_artifact(len(tar))
    registry.put_piece(DIGEST, 0, tar[:PIECE_BYTES])
    with pytest.raises(RegistryUnavailable, match="upload it again"):
        registry.complete_artifact(DIGEST, len(tar))
    assert registry.artifact_sizes() == {}
    registry.put_piece(DIGEST, 1, tar[PIECE_BYTES:])
    assert client.ttl(f"{PREFIX}artifact:{DIGEST}:1") > 0
    registry.complete_artifact(DIGEST, len(tar))
    assert client.ttl(f"{PREFIX}artifact:{DIGEST}:1") == -1
    other = opened(server, "b")
    assert other.artifact_sizes() == {DIGEST: len(tar)}
    assert other.get_piece(DIGEST, 0) + other.get_piece(DIGEST, 1) == tar
    registry.remove_artifact(DIGEST)
    assert other.artifact_sizes() == {}
    assert client.keys(f"{PREFIX}artifact:*") == []
    with pytest.raises(RegistryUnavailable, match="gone"):
        other.get_piece(DIGEST, 0)


def test_artifacts_are_bounded(server: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_registry, "MAX_ARTIFACT_BYTES", 60)
    monkeypatch.setattr(shared_registry, "MAX_ARTIFACTS_BYTES", 100)
    registry = opened(server)
    led(registry)
    with pytest.raises(TooLarge, match="at most 60"):
        registry.admit_artifact(61)
    registry.put_piece(DIGEST, 0, b"x" * 60)
    registry.complete_artifact(DIGEST, 60)
    registry.admit_artifact(40)
    with pytest.raises(TooLarge, match=r"have 60 bytes.*41.*over 100"):
        registry.admit_artifact(41)


def test_who_leads_no_more_removes_no_artifact(server: RedisServer, opened: Open) -> None:
    old, new = opened(server, "old"), opened(server, "new")
    led(old)
    old.put_piece(DIGEST, 0, b"x")
    old.complete_artifact(DIGEST, 1)
    old.release()
    led(new)
    with pytest.raises(NotLeader):
        old.remove_artifact(DIGEST)
    assert new.get_piece(DIGEST, 0) == b"x"


def test_who_only_looks_takes_no_lease(server: RedisServer, opened: Open, client: Redis) -> None:
    a, b = opened(server, "a"), opened(server, "b")
    led(a)
    client.delete(PREFIX + "held")
    assert isinstance(outcome := b.acquire(takes=False), Leader) and outcome.address == "http://a"
    assert isinstance(a.renew(is_ready=True), Renewed)


def test_a_secret_is_made_once_and_only_by_who_leads(server: RedisServer, opened: Open) -> None:
    a, b = opened(server, "a", SHORT), opened(server, "b")
    led(a)
    assert [a.secret("x", made) for made in (b"first", b"second")] == [b"first", b"first"]
    assert a.secret("y", b"other") == b"other"
    until(lambda: isinstance(b.acquire(), Lease))
    with pytest.raises(NotLeader):
        a.secret("x", b"third")
    assert b.secret("x", b"third") == b"first"
