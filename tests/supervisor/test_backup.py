"""A home in one file and back, without a server: what is whole comes back whole, and what is not changes nothing."""

import io
import os
import sqlite3
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipper.base.processes.proc import start_time
from clipper.base.processes.process import ProcessRecord
from clipper.base.trees import seal_tree
from clipper.errors import ClipperError, Conflict, InvalidArgument, RegistryUnavailable, Unavailable
from clipper.settings.home import lock_home
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.backup import Backup, back_up, restore
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put
from tests.example_counts import share_of

DIGEST, CODE, GONE = "a" * 64, "b" * 64, "c" * 64


def version(name: str, artifact: str = DIGEST) -> VersionRecord:
    return VersionRecord("m", name, VersionSpec(artifact, "import", "m:f"), Batching(), True, 1, 0.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One with an application, a model, what was learned, and artifacts as they are unpacked."""
    home = tmp_path / "home"
    for folder in ("artifacts", "run"):
        (home / folder).mkdir(parents=True)
    application = ApplicationRecord("app", "string", 20.0, code=CODE)
    write(home, application, ModelRecord("m"), version("1"))
    with closing(sqlite3.connect(home / "selection.sqlite3")) as store, store:
        store.execute("CREATE TABLE sums (amount REAL)")
        store.execute("INSERT INTO sums VALUES (7)")
    (home / "token").write_text("secret")
    for digest in (DIGEST, CODE, GONE):
        artifact = home / "artifacts" / digest
        (artifact / "code").mkdir(parents=True)
        (artifact / "code" / "m.py").write_text(digest)
        (artifact / "program").write_text("#!/bin/sh")
        (artifact / "program").chmod(0o755)
        (artifact / "link").symlink_to("code/m.py")
        (artifact / "code" / "again.py").hardlink_to(artifact / "code" / "m.py")
        seal_tree(artifact)
    return home


def write(home: Path, *records: object) -> None:
    with closing(SqliteRegistry(home / "registry.sqlite3")) as registry:
        registry.write(*map(Put, records))  # type: ignore[arg-type]


def versions(home: Path) -> set[str]:
    with closing(SqliteRegistry(home / "registry.sqlite3")) as registry:
        return {record.version for record in registry.load().versions}


def learned(home: Path) -> float:
    with closing(sqlite3.connect(home / "selection.sqlite3")) as store:
        return float(store.execute("SELECT sum(amount) FROM sums").fetchone()[0])


def tree(root: Path) -> dict[str, tuple[int, bytes | str]]:
    found = {}
    for path in [root, *root.rglob("*")]:
        content = str(path.readlink()) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(root))] = (path.lstat().st_mode, content)
    return found


def test_a_home_comes_back_in_a_new_place(home: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "backup.tar", tmp_path / "other"
    info = back_up(home, file)
    assert (info.artifacts, info.missing, info.learned) == ((DIGEST, CODE), (), True)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("backup")] == ["backup.tar"]

    assert restore(other, file) == (info, None)
    assert versions(other) == {"1"} and learned(other) == 7
    assert (other / "token").read_text() == "secret"
    assert {path.name for path in (other / "artifacts").iterdir()} == {DIGEST, CODE}
    for digest in (DIGEST, CODE):
        assert tree(other / "artifacts" / digest) == tree(home / "artifacts" / digest)
    private = [path for path in other.iterdir() if path.is_file()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)


def test_what_is_replaced_is_kept_with_what_is_in_its_log_alone(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    back_up(home, file)
    writer = f"""
import os, sqlite3
database = sqlite3.connect({str(home / "registry.sqlite3")!r}, isolation_level=None)
database.execute("INSERT INTO models VALUES ('later', '{{}}')")
os._exit(0)
"""
    with Popen([sys.executable, "-c", writer]) as killed:
        killed.wait()
    assert (home / "registry.sqlite3-wal").stat().st_size > 0
    (home / "token").write_text("newer")

    _, kept = restore(home, file)
    assert kept is not None and kept.parent == home
    assert versions(home) == {"1"} and (home / "token").read_text() == "secret"
    assert (kept / "token").read_text() == "newer"
    for folder, number in ((home, 0), (kept, 1)):
        with closing(sqlite3.connect(folder / "registry.sqlite3")) as database:
            query = "SELECT count(*) FROM models WHERE name = 'later'"
            assert database.execute(query).fetchone() == (number,)


def test_a_damaged_registry_is_replaced(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    back_up(home, file)
    (home / "registry.sqlite3").write_bytes(b"no database " * 1000)
    _, kept = restore(home, file)
    assert versions(home) == {"1"}
    assert kept is not None and (kept / "registry.sqlite3").read_bytes().startswith(b"no database")
    with pytest.raises(RegistryUnavailable):
        SqliteRegistry(kept / "registry.sqlite3")


def test_ids_of_queries_after_the_backup_are_not_given_again(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    with closing(SqliteRegistry(home / "registry.sqlite3")) as registry:
        before = registry.reserve("worker", 10)
    back_up(home, file)
    restore(home, file)
    with closing(SqliteRegistry(home / "registry.sqlite3")) as registry:
        assert registry.reserve("worker", 1) > before + 10


def test_artifacts_that_are_gone_are_named_and_do_not_stop_a_backup(home: Path, tmp_path: Path) -> None:
    write(home, version("2", "d" * 64))
    assert back_up(home, tmp_path / "backup.tar").missing == ("d" * 64,)


def test_what_a_record_names_that_cannot_be_read_is_in_it(home: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(home / "registry.sqlite3")) as database, database:
        database.execute("INSERT INTO versions VALUES ('m', '9', ?)", (f'{{"artifact": "{GONE}"}}',))
    assert back_up(home, tmp_path / "backup.tar").artifacts == (DIGEST, CODE, GONE)


def test_a_backup_never_takes_the_place_of_a_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "backup.tar").write_text("precious")
    with pytest.raises(Conflict, match="exists already"):
        back_up(home, tmp_path / "backup.tar")
    with pytest.raises(Unavailable, match="nothing to back up"):
        back_up(tmp_path / "nowhere", tmp_path / "other.tar")
    with pytest.raises(Unavailable, match="check the disk"):
        back_up(home, tmp_path / "no" / "folder.tar")
    # An older registry may be there, but it is not the one in use.
    (home / "supervisor.id").write_text("0123456789abcdef")
    with pytest.raises(Unavailable, match="in the Redis of --registry"):
        back_up(home, tmp_path / "other.tar")


def test_a_home_in_use_is_left_alone(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    back_up(home, file)
    lock = lock_home(home)
    with pytest.raises(Conflict, match="runs already"):
        restore(home, file)
    os.close(lock)
    with Popen([sys.executable, "-c", "input()"], stdin=-1) as worker:
        record = ProcessRecord("worker-0", worker.pid, start_time(worker.pid) or 0, (), {})
        (home / "run" / "worker-0.json").write_bytes(msgspec.json.encode(record))
        with pytest.raises(Conflict, match=r"worker-0.*still runs.*run clipper stop"):
            restore(home, file)
        worker.kill()
    restore(home, file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=share_of(30))
@given(share=st.floats(0, 0.999))
def test_one_that_is_cut_short_changes_nothing(home: Path, tmp_path: Path, share: float) -> None:
    whole = tmp_path / "whole.tar"
    if not whole.exists():
        back_up(home, whole)
    content = whole.read_bytes()
    content = content[: content.rindex(b"end\0") + 1]  # what is behind fills the last block
    cut = tmp_path / "cut.tar"
    cut.write_bytes(content[: int(len(content) * share)])
    before = tree(home)
    with pytest.raises(InvalidArgument, match=r"cut short|empty|damaged|is not a backup"):
        restore(home, cut)
    after = tree(home)
    assert after.keys() - before.keys() <= {"supervisor.lock"}
    assert {name: entry for name, entry in after.items() if name in before and name != "."} == {
        name: entry for name, entry in before.items() if name != "."
    }


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def info(**fields: object) -> tuple[tarfile.TarInfo, bytes]:
    given = {"format": 1, "clipper": "9.9", "at": 0.0, "artifacts": (DIGEST,), "missing": (), "learned": False}
    return tarfile.TarInfo("backup.json"), msgspec.json.encode(Backup(**(given | fields)))  # type: ignore[arg-type]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def file(name: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def odd(**attributes: str) -> tuple[tarfile.TarInfo, bytes]:
    """With attributes that headers of the old format do not hold."""
    member = tarfile.TarInfo("x")
    member.pax_headers = attributes
    return member, b""


OF, END = f"artifacts/{DIGEST}", file("end")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ((), "is not a backup|cut short|damaged"),
        (((tarfile.TarInfo("other"), b"x"),), "is not a backup"),
        ((info(format=2),), "of Clipper 9.9"),
        ((info(), END), "no registry.sqlite3"),
        ((info(), file("supervisor.lock")), "which is not part of any backup"),
        ((info(), file("")), "which is not part of any backup"),
        ((info(), file(f"artifacts/{CODE}/x")), "which is not part of any backup"),
        ((info(), file(f"{OF}/../../x")), "which is not part of any backup"),
        ((info(), file(OF)), "which is not part of any backup"),
        ((info(), link("registry.sqlite3", "/etc/passwd")), "which is not part of any backup"),
        ((info(), link(OF, "/tmp"), file(f"{OF}/x")), "which is not part of any backup"),
        ((info(), link(f"{OF}/a", "/tmp"), file(f"{OF}/a/x"), END), "not part of any backup"),
        ((info(), link(f"{OF}/b/a", "/tmp"), link(f"{OF}/b/a/x", "y"), END), "not part of any backup"),
        ((info(), file(f"{OF}/b/y"), link(f"{OF}/b/a", "/tmp"), link(f"{OF}/b/a/x", "y"), END), "not part of any"),
        ((info(), odd(path=f"{OF}/a\0b"), END), "damaged"),
        ((info(), odd(path=f"{OF}/a", mtime="1e300"), END), "damaged"),
        ((info(), link(f"{OF}/a", "/etc/passwd", tarfile.LNKTYPE)), "which is not part of any backup"),
        ((info(), link(f"{OF}/a", "/tmp"), link(f"{OF}/b", f"{OF}/a", tarfile.LNKTYPE)), "not part of any backup"),
        ((info(artifacts=("../..",)), END), "an impossible artifact or time"),
        ((info(artifacts=("/tmp/precious",)), END), "an impossible artifact or time"),
        ((info(at=1e300), END), "an impossible artifact or time"),
    ],
)
def test_what_is_no_backup_changes_nothing(
    tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        restore(tmp_path / "home", tar_of(tmp_path / "backup.tar", *members))
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["supervisor.lock"]


def test_what_a_hostile_backup_names_is_not_removed_or_sealed(home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    before = tree(precious)
    registry = file("registry.sqlite3", (home / "registry.sqlite3").read_bytes())
    for members in (
        (info(artifacts=(str(precious),)), registry, END),
        (info(), registry, link(OF, str(precious)), END),
    ):
        with pytest.raises(InvalidArgument):
            restore(tmp_path / "other", tar_of(tmp_path / "backup.tar", *members))
    assert tree(precious) == before


def test_a_home_that_cannot_be_written_is_told(home: Path, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup.tar")
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "supervisor.lock").mkdir()
    for place in (tmp_path / "file" / "home", tmp_path / "file", tmp_path / "taken"):
        with pytest.raises(Unavailable, match=r"check the disk|choose another with --home"):
            restore(place, tmp_path / "backup.tar")


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "/dev/zero"):
        with pytest.raises(InvalidArgument, match="is not a backup: expected a file"):
            restore(tmp_path / "home", tmp_path / name)


def test_one_of_a_newer_schema_changes_nothing(home: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(home / "selection.sqlite3")) as store:
        store.execute("PRAGMA user_version = 999")
    back_up(home, tmp_path / "learned.tar")
    with pytest.raises(InvalidArgument, match="schema version 999"):
        restore(home, tmp_path / "learned.tar")
    with pytest.raises(ClipperError, match="no file"):
        restore(home, tmp_path / "nowhere.tar")
    assert not list(home.glob("replaced-*"))
