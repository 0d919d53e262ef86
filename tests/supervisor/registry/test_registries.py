"""Both registries, by the same tests, on real storage."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from clipper.errors import RegistryUnavailable
from clipper.supervisor.registry.records import (
    TABLES,
    ApplicationRecord,
    KeyRecord,
    ModelRecord,
    TokenRecord,
    VersionRecord,
)
from clipper.supervisor.registry.redis import PREFIX, RedisRegistry
from clipper.supervisor.registry.shared import Holder
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import (
    Change,
    Delete,
    ForgetLater,
    Forgotten,
    Put,
    Registry,
)
from tests.example_counts import share_of
from tests.redis_server import RedisServer
from tests.supervisor.registry.registry_records import APPLICATION, TOKEN, version_of

# Opens the same registry again each time, as a supervisor that is started again does.
Open = Callable[[], Registry]
# Stores a text in place of a record: kind, name, text.
Spoil = Callable[[str, str, bytes], None]


def of_leader(url: str) -> RedisRegistry:
    registry = RedisRegistry(url, Holder("home", "http://here"))
    registry.acquire()
    return registry


@pytest.fixture(params=["sqlite", "redis"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Open, Spoil]]:
    path = tmp_path / "registry.sqlite3"

    def spoil_sqlite(kind: str, name: str, text: bytes) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            names = "?" if kind != "versions" else "?, ?"
            other.execute(f"REPLACE INTO {kind} VALUES ({names}, CAST(? AS TEXT))", (*name.split(":"), text))

    with ExitStack() as stack:
        if request.param == "sqlite":
            yield lambda: stack.enter_context(closing(SqliteRegistry(path))), spoil_sqlite
            return
        server: RedisServer = request.getfixturevalue("redis_server")
        client = stack.enter_context(Redis.from_url(server.url))
        client.flushall()
        yield (
            lambda: stack.enter_context(closing(of_leader(server.url))),
            lambda kind, name, text: client.hset(PREFIX + kind, name, text),  # type: ignore[arg-type, return-value]
        )


@pytest.fixture
def open_registry(storage: tuple[Open, Spoil]) -> Open:
    return storage[0]


def test_everything_comes_back_after_reopening(open_registry: Open) -> None:
    versions = (version_of("svm", "1", state="ready"), version_of("svm", "2", promotion=3, log_tail=("a", "b")))
    key = KeyRecord("shop", "ef" * 32, ("digits",), 3, 4.5, created_at=1e9)
    registry = open_registry()
    registry.write(Put(APPLICATION), Put(ModelRecord("svm", "1")), *map(Put, versions), Put(TOKEN), Put(key))
    registry.close()

    contents = open_registry().load()
    assert contents.applications == (APPLICATION,)
    assert contents.models == (ModelRecord("svm", "1"),)
    assert contents.versions == versions
    assert (contents.tokens, contents.keys, contents.unreadable) == ((TOKEN,), (key,), ())


def test_what_is_to_be_forgotten_is_known_until_it_is(open_registry: Open) -> None:
    registry = open_registry()
    registry.write(Put(APPLICATION))
    registry.write(Delete(ApplicationRecord, "digits"), ForgetLater("digits#1"), ForgetLater("a#1"), ForgetLater("a#1"))
    registry.close()
    registry = open_registry()
    assert (registry.load().applications, registry.load().to_forget) == ((), ("a#1", "digits#1"))
    registry.write(Forgotten("a#1"), Forgotten("never"))
    assert registry.load().to_forget == ("digits#1",)


def test_putting_a_model_again_keeps_its_versions(open_registry: Open) -> None:
    registry = open_registry()
    registry.write(Put(ModelRecord("svm")), Put(version_of("svm", "1")))
    registry.write(Put(ModelRecord("svm", "1")))
    contents = registry.load()
    assert contents.models == (ModelRecord("svm", "1"),)
    assert len(contents.versions) == 1


def test_deleting(open_registry: Open) -> None:
    registry = open_registry()
    registry.write(Put(APPLICATION), Put(ModelRecord("svm")), Put(ModelRecord("forest")), Put(ModelRecord("svm-2")))
    registry.write(*(Put(version_of(model, version)) for model in ("svm", "forest", "svm-2") for version in "12"))
    registry.write(Put(TOKEN), Put(KeyRecord("shop", "ef" * 32, created_at=1e9)))
    registry.write(Delete(ApplicationRecord, "digits"), Delete(VersionRecord, "svm-2:1"), Delete(ModelRecord, "svm"))
    registry.write(
        Delete(TokenRecord, "ci"), Delete(KeyRecord, "shop"), Delete(KeyRecord, "never"), Delete(ModelRecord, "never")
    )
    contents = registry.load()
    assert (contents.applications, contents.tokens, contents.keys) == ((), (), ())
    assert [str(version.id) for version in contents.versions] == ["forest:1", "forest:2", "svm-2:2"]


def test_a_write_is_all_or_nothing(open_registry: Open) -> None:
    registry = open_registry()
    with pytest.raises(RegistryUnavailable):
        registry.write(Put(APPLICATION), Put(version_of("no-such-model", "1")))
    assert registry.load().applications == ()
    registry.write(Put(APPLICATION))
    assert registry.load().applications == (APPLICATION,)


def test_nothing_to_write_is_no_error(open_registry: Open) -> None:
    open_registry().write()


def test_reserved_numbers_are_never_given_twice(open_registry: Open) -> None:
    registry = open_registry()
    numbers = [registry.reserve("replica", 10), registry.reserve("replica", 1), registry.reserve("worker", 1)]
    assert numbers == [1, 11, 1]
    registry.close()
    assert open_registry().reserve("replica", 1) == 12


def test_a_record_that_cannot_be_read_costs_no_other_its_place(storage: tuple[Open, Spoil]) -> None:
    open_registry, spoil = storage
    registry = open_registry()
    registry.write(Put(APPLICATION), Put(ModelRecord("svm", "1")), Put(version_of("svm", "1")))
    registry.close()
    spoil("applications", "a", b'{"\xff')
    spoil("applications", "b", b"[" * 5000)
    spoil("models", "m", b'{"name": 7}')
    spoil("versions", "svm:2", b"{}")
    contents = open_registry().load()
    assert (contents.applications, [one.name for one in contents.models]) == ((APPLICATION,), ["svm"])
    assert [one.version for one in contents.versions] == ["1"]
    found = [f"{TABLES[one.kind].removesuffix('s')} {one.name}" for one in contents.unreadable]
    assert found == ["application a", "application b", "model m", "version svm:2"]


NAMES = st.sampled_from(["a", "b", "a.b"])
CHANGES = st.one_of(
    NAMES.map(lambda name: Put(ModelRecord(name, "1"))),
    st.tuples(NAMES, st.sampled_from("12")).map(lambda id_: Put(version_of(*id_))),
    NAMES.map(lambda name: Put(ApplicationRecord(name, "string", 20.0))),
    NAMES.map(lambda name: Delete(ModelRecord, name)),
    NAMES.map(lambda name: Delete(ApplicationRecord, name)),
    st.tuples(NAMES, st.sampled_from("12")).map(lambda id_: Delete(VersionRecord, ":".join(id_))),
    NAMES.map(ForgetLater),
    NAMES.map(Forgotten),
)


@settings(max_examples=share_of(60), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.lists(CHANGES, min_size=1, max_size=4), max_size=6))
def test_both_registries_are_the_same_after_any_changes(
    tmp_path: Path, redis_server: RedisServer, writes: list[list[Change]]
) -> None:
    (tmp_path / "registry.sqlite3").unlink(missing_ok=True)
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    with (
        closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as sqlite,
        closing(of_leader(redis_server.url)) as redis,
    ):
        for changes in writes:
            refusals = []
            for registry in (sqlite, redis):
                try:
                    registry.write(*changes)
                except RegistryUnavailable:
                    refusals.append(registry)
            assert len(refusals) in (0, 2)
            assert sqlite.load() == redis.load()
