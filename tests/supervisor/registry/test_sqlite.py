import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from clipper.errors import RegistryUnavailable
from clipper.settings.application import Link, Selection
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.registry.records import (
    TABLES,
    ApplicationRecord,
    KeyRecord,
    ModelRecord,
    TokenRecord,
    VersionRecord,
)
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import SCHEMA_VERSION, Put
from tests.supervisor.registry.registry_records import APPLICATION, TOKEN, version_of
from tests.waiting import TIMEOUT_S

Open = Callable[[Path], SqliteRegistry]


@pytest.fixture
def open_registry() -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(SqliteRegistry(path)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite3"


def test_an_application_from_before_there_was_selection_is_read(path: Path, open_registry: Open) -> None:
    open_registry(path).close()
    old = '{"name":"old","input_type":"string","slo_ms":20.0,"default_output":null,"policy":"single","links":[]}'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE to_forget")
        database.execute("DELETE FROM schema WHERE version > 1")
        database.execute("INSERT INTO applications VALUES ('old', ?)", (old,))
    contents = open_registry(path).load()
    assert contents.applications == (ApplicationRecord("old", "string", 20.0),)
    assert contents.to_forget == ()


def test_a_newer_schema_is_refused_and_left_alone(path: Path, open_registry: Open) -> None:
    open_registry(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema VALUES (?)", (SCHEMA_VERSION + 1,))
    connection.close()
    with pytest.raises(RegistryUnavailable, match=rf"schema version {SCHEMA_VERSION + 1}.*newer"):
        open_registry(path)


def test_an_older_schema_is_migrated_and_kept_as_it_was(path: Path, open_registry: Open) -> None:
    registry = open_registry(path)
    registry.write(Put(APPLICATION))
    registry.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM schema WHERE version > 1")
        for table in ("to_forget", "tokens", "keys"):
            connection.execute(f"DROP TABLE {table}")

    registry = open_registry(path)
    registry.write(Put(TOKEN))
    assert registry.load().tokens == (TOKEN,)
    assert registry.load().applications == (APPLICATION,)
    copy = path.with_name("registry.sqlite3.schema-1")
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT max(version) FROM schema").fetchone() == (1,)
        assert connection.execute("SELECT name FROM applications").fetchall() == [("digits",)]
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'tokens'").fetchone() == (0,)


def test_a_new_registry_and_one_that_is_opened_again_keep_no_copy(path: Path, open_registry: Open) -> None:
    open_registry(path).close()
    open_registry(path)
    assert list(path.parent.glob("*.schema-*")) == []


def test_a_registry_is_not_migrated_that_cannot_be_kept(path: Path, open_registry: Open) -> None:
    open_registry(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM schema WHERE version > 1")
    path.with_name("registry.sqlite3.schema-1").mkdir()
    with pytest.raises(RegistryUnavailable, match="a copy of it cannot be kept"):
        open_registry(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT max(version) FROM schema").fetchone() == (1,)


def test_every_field_of_a_record_is_of_a_schema_version() -> None:
    """An older Clipper drops a field that it does not know. So one that is added to a version that has been released
    makes the next: raise SCHEMA_VERSION, give it a migration, which may be empty, and begin a list for it."""
    listed = json.loads((Path(__file__).parent / "fields.json").read_text())
    assert max(map(int, listed)) == SCHEMA_VERSION
    known = {
        f"{kind.__name__}.{field}"
        for kind in (
            ApplicationRecord,
            ModelRecord,
            VersionRecord,
            VersionSpec,
            TokenRecord,
            KeyRecord,
            Batching,
            Link,
            Selection,
            ReplicaRange,
        )
        for field in kind.__struct_fields__
    }
    assert known == {field for fields in listed.values() for field in fields}


def test_a_locked_registry_says_so_in_bounded_time(path: Path, open_registry: Open) -> None:
    registry = open_registry(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryUnavailable, match="locked"):
        registry.write(Put(APPLICATION))
    other.execute("ROLLBACK")
    other.close()
    registry.write(Put(APPLICATION))


def test_a_record_that_cannot_be_read_costs_no_other_its_place(path: Path, open_registry: Open) -> None:
    registry = open_registry(path)
    registry.write(Put(APPLICATION), Put(ModelRecord("svm", "1")), Put(version_of("svm", "1")))
    registry.close()
    rows = {
        ("applications", "'a'"): "CAST(X'7b22ff' AS TEXT)",
        ("applications", "'b'"): "'{'",
        ("applications", "'c'"): "'" + "[" * 5000 + "'",
        ("applications", "'d'"): f"(SELECT record FROM applications WHERE name = '{APPLICATION.name}')",
        ("models", "'m'"): "'{\"name\": 7}'",
        ("versions", "'svm', '2'"): "'{}'",
        ("tokens", "'t'"): "'null'",
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for (table, key), record in rows.items():
            other.execute(f"INSERT INTO {table} VALUES ({key}, {record})")
    contents = open_registry(path).load()
    assert (contents.applications, [one.name for one in contents.models]) == ((APPLICATION,), ["svm"])
    assert [one.version for one in contents.versions] == ["1"]
    found = [f"{TABLES[one.kind].removesuffix('s')} {one.name}" for one in contents.unreadable]
    names = ["application a", "application b", "application c", "application d", "model m", "version svm:2", "token t"]
    assert found == names
    assert "calls itself 'digits'" in contents.unreadable[3].why


def test_a_damaged_registry_says_so(path: Path, open_registry: Open) -> None:
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(RegistryUnavailable, match="not a registry"):
        open_registry(path)


def test_a_folder_that_is_not_there_says_so(tmp_path: Path, open_registry: Open) -> None:
    with pytest.raises(RegistryUnavailable, match="folder exists"):
        open_registry(tmp_path / "none" / "registry.sqlite3")


FILL = """
import resource, sys
from pathlib import Path
from clipper.errors import RegistryUnavailable
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put
registry = SqliteRegistry(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
written = 0
try:
    while written < 1000:
        registry.write(Put(ApplicationRecord(f"a{written}", "string", 20.0, '"' + "x" * 5000 + '"')))
        written += 1
except RegistryUnavailable as error:
    print(error)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
registry.write(Put(ApplicationRecord("after", "string", 20.0)))
print(written, len(registry.load().applications))
"""


def test_a_full_disk_is_an_error_and_no_damage(path: Path, open_registry: Open) -> None:
    """The bound on a file's size stands for the disk's end: the same write fails, and only in that process."""
    run = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    complaint, counts = run.stdout.splitlines()
    assert "disk" in complaint
    written, kept = map(int, counts.split())
    assert 0 < written < 1000
    assert kept == written + 1
    assert len(open_registry(path).load().applications) == kept


MOUNT = ["mount", "-t", "tmpfs", "-o", "size=512k", "none"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk(tmp_path: Path, open_registry: Open) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run([*MOUNT, mount], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        registry = open_registry(mount / "registry.sqlite3")
        registry.write(Put(APPLICATION))
        with pytest.raises(OSError, match="No space"), (mount / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        with pytest.raises(RegistryUnavailable, match="the disk is full: free some space"):
            registry.write(Put(ApplicationRecord("big", "string", 20.0, '"' + "x" * 100_000 + '"')))
        (mount / "ballast").unlink()
        registry.write(Put(ApplicationRecord("after", "string", 20.0)))
        assert [application.name for application in registry.load().applications] == ["after", "digits"]
        registry.close()
    finally:
        subprocess.run(["umount", mount], check=True)


WRITE = """
import sys
from pathlib import Path
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put
registry = SqliteRegistry(Path(sys.argv[1]))
number = len(registry.load().models)
while True:
    registry.write(Put(ApplicationRecord(f"a{number}", "string", 20.0)), Put(ModelRecord(f"a{number}")))
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_kill_9(path: Path, open_registry: Open) -> None:
    rng = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(rng.randrange(3, 30)):
            acknowledged = int(process.stdout.readline())
        process.kill()
        process.stdout.close()
        process.wait()
        contents = open_registry(path).load()
        names = [application.name for application in contents.applications]
        assert f"a{acknowledged}" in names
        assert names == [model.name for model in contents.models]
