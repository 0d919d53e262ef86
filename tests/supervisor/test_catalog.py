import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clipper.errors import NotFound, RegistryUnavailable
from clipper.settings.application import Link
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog, Numbers
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import (
    Change,
    Contents,
    Delete,
    ForgetLater,
    Forgotten,
    Put,
)
from clipper.supervisor.rollout import wanted

APPLICATION = ApplicationRecord("app", "string", 20.0, id="app#1", code="b")
VERSION = VersionRecord("m", "1", VersionSpec("a", "import", "m:f"), Batching(), True, 1, 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite3"


@pytest.fixture
def registry(path: Path) -> Iterator[SqliteRegistry]:
    with closing(SqliteRegistry(path)) as registry:
        yield registry


@pytest.fixture(autouse=True)
def no_lock_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.supervisor.registry.sqlite.BUSY_TIMEOUT_S", 0.0)


@pytest.fixture
def other(path: Path, registry: SqliteRegistry) -> Iterator[sqlite3.Connection]:
    """Another program's connection, with which to lock the registry."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        yield other


def test_a_change_that_cannot_be_stored_is_not_made(registry: SqliteRegistry, other: sqlite3.Connection) -> None:
    catalog = Catalog(registry)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryUnavailable):
        catalog.commit(Put(ApplicationRecord("a", "string", 20.0)))
    assert catalog.applications == {}
    with pytest.raises(NotFound, match="'a'"):
        catalog.application("a")


def test_what_has_happened_holds_and_is_stored_when_it_can_be(
    registry: SqliteRegistry, other: sqlite3.Connection
) -> None:
    catalog = Catalog(registry)
    catalog.commit(Put(ModelRecord("m")), Put(VERSION))
    other.execute("BEGIN IMMEDIATE")
    failed = VersionRecord("m", "1", VERSION.spec, Batching(), True, 1, 0.0, state="failed")
    catalog.note(failed)
    assert catalog.version("m", "1") == failed
    assert not catalog.save_notes()
    assert registry.load().versions == (VERSION,)
    other.execute("ROLLBACK")
    assert catalog.save_notes()
    assert registry.load().versions == (failed,)


def test_a_note_on_what_was_removed_since_is_not_stored(registry: SqliteRegistry, other: sqlite3.Connection) -> None:
    catalog = Catalog(registry)
    catalog.commit(Put(ModelRecord("m")), Put(VERSION))
    other.execute("BEGIN IMMEDIATE")
    catalog.note(VERSION)
    other.execute("ROLLBACK")
    catalog.commit(Delete(VersionRecord, str(VERSION.id)))
    assert catalog.save_notes()
    assert registry.load().versions == ()


def test_a_model_goes_with_its_versions(registry: SqliteRegistry) -> None:
    catalog = Catalog(registry)
    catalog.commit(Put(ModelRecord("m")), Put(VERSION), Put(ModelRecord("n")))
    catalog.commit(Delete(ModelRecord, "m"))
    assert (list(catalog.models), catalog.versions) == (["n"], {})
    with pytest.raises(NotFound):
        catalog.version("m", "1")


def test_numbers_go_on_while_the_registry_is_locked(registry: SqliteRegistry, other: sqlite3.Connection) -> None:
    numbers = Numbers(registry, "replica")
    numbers.reserve()
    other.execute("BEGIN IMMEDIATE")
    assert [numbers() for _ in range(Numbers.BLOCK)] == list(range(1, Numbers.BLOCK + 1))
    with pytest.raises(RegistryUnavailable):
        numbers()
    other.execute("ROLLBACK")
    assert numbers() == Numbers.BLOCK + 1
    assert Numbers(registry, "replica")() == 2 * Numbers.BLOCK + 1


def test_numbers_of_homes_that_are_not_to_meet_begin_apart(registry: SqliteRegistry) -> None:
    assert Numbers(registry, "worker", skip=5000)() == Numbers.BLOCK + 5001
    assert Numbers(registry, "worker", skip=7000)() == 2 * Numbers.BLOCK + 5001


def test_ids_of_applications_are_counted_by_name(registry: SqliteRegistry) -> None:
    catalog = Catalog(registry)
    assert [catalog.new_application_id(name) for name in ("a", "b", "a")] == ["a#1", "b#1", "a#2"]
    assert Catalog(registry).new_application_id("a") == "a#3"


def test_what_is_to_be_forgotten(registry: SqliteRegistry) -> None:
    catalog = Catalog(registry)
    catalog.commit(Put(APPLICATION))
    catalog.commit(Delete(ApplicationRecord, "app"), ForgetLater("app#1"))
    assert catalog.to_forget == Catalog(registry).to_forget == {"app#1"}
    catalog.commit(Forgotten("app#1"))
    assert catalog.to_forget == Catalog(registry).to_forget == set()


def test_which_artifacts_are_used(registry: SqliteRegistry) -> None:
    catalog = Catalog(registry)
    catalog.commit(Put(ModelRecord("m")), Put(VERSION), Put(APPLICATION))
    assert [catalog.uses_artifact(digest) for digest in ("a", "b", "c")] == [True, True, False]
    catalog.commit(Delete(ApplicationRecord, "app"))
    assert not catalog.uses_artifact("b")


def test_what_cannot_be_read_is_told_and_kept_until_it_is_made_anew(
    registry: SqliteRegistry, other: sqlite3.Connection
) -> None:
    digests = [letter * 64 for letter in "abc"]
    other.execute("INSERT INTO models VALUES ('n', '{}')")
    for model in "mn":
        other.execute("INSERT OR IGNORE INTO models VALUES (?, json_object('name', ?))", (model, model))
        other.execute("INSERT INTO versions VALUES (?, '7', ?)", (model, f'{{"spec": "{digests[0]}"}}'))
    other.execute("INSERT INTO applications VALUES ('app', ?)", (f'{{"code": "{digests[1]}"}}',))
    catalog = Catalog(registry)
    assert (list(catalog.applications), list(catalog.models), catalog.versions) == ([], ["m"], {})
    told = catalog.problems()
    assert [text.partition(" is left out: ")[0] for text in told] == [
        "application 'app'",
        "model 'n'",
        "version 'm:7'",
        "version 'n:7'",
    ]
    # Records that a newer Clipper may need, should it come back, are not removed, nor are their names given away.
    assert [catalog.uses_artifact(digest) for digest in digests] == [True, True, False]
    assert catalog.taken_versions("m") == {"7"}
    seven = replace(VERSION, version="7")
    catalog.commit(Put(APPLICATION), Put(ModelRecord("n")), Put(seven), Put(replace(seven, model="n")))
    assert catalog.problems() == [] == Catalog(registry).problems()


def test_numbers_in_use_are_passed_over_whatever_the_registry_counts(registry: SqliteRegistry) -> None:
    """It may be one from a backup, while what it has started since is still there."""
    numbers = Numbers(registry, "replica")
    numbers.reserve()
    for used, following in ((0, 1), (7, 8), (3, 9), (100, 101), (99, 102), (5000, 5001)):
        numbers.pass_over(used)
        assert numbers() == following
    assert Numbers(registry, "replica")() > 5001


class MemoryRegistry:
    """Stores nothing."""

    def load(self) -> Contents:
        return Contents((), (), ())

    def write(self, *changes: Change) -> None: ...

    async def sync(self) -> None: ...

    def reserve(self, counter: str, count: int) -> int:
        return 1

    def close(self) -> None: ...


LINKS = [(), (Link("m"),), (Link("m", "1"), Link("n"))]
CHANGES = st.sampled_from(
    [
        *(Put(ApplicationRecord(name, "string", 20.0, links=links)) for name in "ab" for links in LINKS),
        *(Put(ModelRecord(name, current)) for name in "mn" for current in (None, "1")),
        *(
            Put(replace(VERSION, model=name, version=one, created_at=at))
            for name in "mn"
            for one in "12"
            for at in (1.0, 2.0)
        ),
        *(Delete(VersionRecord, f"{name}:{one}") for name in "mn" for one in "12"),
        *(Delete(ModelRecord, name) for name in "mn"),
        *(Delete(ApplicationRecord, name) for name in "ab"),
    ]
)


@given(st.lists(CHANGES, max_size=20))
def test_what_is_asked_of_one_model_is_what_all_records_say(changes: list[Change]) -> None:
    catalog = Catalog(MemoryRegistry())
    for change in changes:
        before = catalog.revision, catalog.fleet_revision
        with contextlib.suppress(KeyError):  # there is nothing of that name
            catalog.commit(change)
            is_of_application = (isinstance(change, Delete) and change.kind is ApplicationRecord) or isinstance(
                getattr(change, "record", None), ApplicationRecord
            )
            assert catalog.revision > before[0] and (catalog.fleet_revision > before[1]) is not is_of_application
        for name in "mn":
            own = [one for one in catalog.versions.values() if one.model == name]
            assert catalog.versions_of(name) == sorted(own, key=lambda one: (one.created_at, one.version))
            pairs = [
                (one, link.version) for one in catalog.applications.values() for link in one.links if link.model == name
            ]
            assert sorted(catalog.linking(name), key=str) == sorted(pairs, key=str)
            assert bool(pairs) or name not in catalog._linking, "models that are gone leave nothing"
        known = {id_: one for id_, one in catalog.versions.items() if one.model in catalog.models}
        if known == catalog.versions:
            assert catalog.running() == wanted.running(catalog)
