"""A tar may make its members in the folder that it is for, and nothing anywhere else."""

import io
import os
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.base.trees import remove_tree
from clipper.errors import InvalidArgument
from clipper.supervisor.artifacts import tar, unpacking
from clipper.supervisor.artifacts.unpacking import Stopped, leads_out, unpack
from tests.example_counts import share_of
from tests.supervisor.tar_files import Member, cve_2025_4517, file, folder, hard_link, member, symlink, tar_of


class Yard:
    """A folder in which a tar is unpacked, beside things that must stay as they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "outside").mkdir()
        (path / "outside" / "secret").write_bytes(b"secret")
        self.into = path / "into"
        self._before = self.outside()

    def outside(self) -> list[tuple[str, int, int, bytes]]:
        """All but what is unpacked, with its links: one to a file of ours is a way to write it."""
        return [
            (str(path), path.lstat().st_mode, path.lstat().st_nlink, path.read_bytes() if path.is_file() else b"")
            for path in sorted(self.path.rglob("*"))
            if not path.is_relative_to(self.into) and path.name != "tar"
        ]

    def unpack(self, data: bytes) -> dict[str, bytes]:
        (self.path / "tar").write_bytes(data)
        try:
            unpack(self.path / "tar", self.into, lambda: False)
            return {
                str(path.relative_to(self.into)): path.read_bytes() for path in self.into.rglob("*") if path.is_file()
            }
        finally:
            self.is_whole()

    def is_whole(self) -> None:
        assert self.outside() == self._before
        for path in self.into.rglob("*"):
            if path.is_symlink():
                assert path.resolve().is_relative_to(self.into.resolve())
            else:
                assert stat.S_ISREG(path.lstat().st_mode) or stat.S_ISDIR(path.lstat().st_mode)
                assert not path.lstat().st_mode & 0o7022


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yield Yard(tmp_path)
    remove_tree(tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_folders_and_links(yard: Yard, form: int) -> None:
    deep = f"{'a' * 90}/{'b' * 90}/weights"
    data = tar_of(
        folder("./"),
        folder("empty"),
        file("code/m.py", b"code"),
        file("./program", b"#!", mode=0o4755),
        file(deep, bytes(1_500_000)),
        hard_link("same", "code/m.py"),
        symlink("data/alias", "../code/m.py"),
        symlink("snapshot", "code"),
        symlink("later", "snapshot/m.py"),
        form=form,
    )
    found = yard.unpack(data)
    assert {name: found[name] for name in ("code/m.py", "same", "data/alias", "later")} == dict.fromkeys(
        ("code/m.py", "same", "data/alias", "later"), b"code"
    )
    assert found[deep] == bytes(1_500_000) and (yard.into / "empty").is_dir()
    # Unpacked files are read-only, and their owner has no more rights than others.
    modes = {name: stat.S_IMODE((yard.into / name).stat().st_mode) for name in ("program", "code/m.py", "code")}
    assert modes == {"program": 0o555, "code/m.py": 0o444, "code": 0o555}


def test_what_the_tar_of_the_system_makes(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / ("n" * 200)).write_bytes(b"long")
    (source / "grüße\n").write_bytes(b"name")
    (source / "link").symlink_to("n" * 200)
    for form in ("gnu", "pax", "v7"):
        # The oldest has no names over 100 bytes.
        names = ["grüße\n"] if form == "v7" else ["grüße\n", "n" * 200, "link"]
        archive, into = source.parent / "tar", source.parent / form
        subprocess.run(["tar", f"--format={form}", "-C", source, "-cf", archive, "--", *names], check=True)
        unpack(archive, into, lambda: False)
        assert (into / "grüße\n").read_bytes() == b"name"
        assert form == "v7" or (into / "link").read_bytes() == b"long"
        remove_tree(into)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(cve_2025_4517(), id="cve-2025-4517"),
        pytest.param(cve_2025_4517(tarfile.GNU_FORMAT), id="cve-2025-4517-gnu"),
        pytest.param(tar_of(file("../outside/new")), id="up"),
        pytest.param(tar_of(file("a/../../outside/new")), id="up-from-below"),
        pytest.param(tar_of(file("/tmp/new")), id="absolute"),
        pytest.param(tar_of(symlink("a", "/etc")), id="absolute-link"),
        pytest.param(tar_of(symlink("a", "../outside")), id="link-out"),
        pytest.param(tar_of(symlink("a", "../outside"), file("a/new")), id="through-link"),
        pytest.param(tar_of(folder("a"), symlink("a/b", ".."), file("a/b/new")), id="through-inner-link"),
        pytest.param(tar_of(symlink("b/up", ".."), symlink("out", "b/up/../outside/secret")), id="link-by-link"),
        pytest.param(tar_of(symlink("a", "b"), symlink("b", "a")), id="circle"),
        pytest.param(tar_of(symlink("a", "b/" * 600)), id="long-target"),
        pytest.param(tar_of(hard_link("a", "../outside/secret"), file("a")), id="hard-link-out"),
        pytest.param(tar_of(symlink("s", "../outside"), hard_link("a", "s/secret")), id="hard-link-by-link"),
        pytest.param(tar_of(hard_link("a", "/etc/passwd")), id="hard-link-absolute"),
        pytest.param(tar_of(hard_link("a", "none")), id="hard-link-to-nothing"),
        pytest.param(tar_of(file("a"), file("a")), id="twice"),
        pytest.param(tar_of(symlink("a", "b"), file("a")), id="file-over-link"),
        pytest.param(tar_of(symlink("a", "b"), symlink("a", "c")), id="link-twice"),
        pytest.param(tar_of(file("a"), file("a/b")), id="file-as-folder"),
        pytest.param(tar_of(folder("a"), file("a")), id="folder-as-file"),
        pytest.param(tar_of(file("a" * 256)), id="long-name"),
        pytest.param(tar_of(file("a/" * 600 + "b")), id="long-path"),
        pytest.param(tar_of(member("a", tarfile.CHRTYPE)), id="device"),
        pytest.param(tar_of(member("a", tarfile.FIFOTYPE)), id="pipe"),
        pytest.param(tar_of(member("a", b"9")), id="unknown"),
        pytest.param(tar_of(file(".")), id="top"),
        pytest.param(tar_of(file("")), id="no-name"),
        pytest.param(tar_of(*(symlink(str(number), "x") for number in range(1001))), id="links-without-end"),
        pytest.param(b"", id="empty"),
        pytest.param(b"no tar" * 200, id="no-tar"),
        pytest.param(tar_of(file("a", bytes(5000)))[:1500], id="cut-off"),
    ],
)
def test_what_is_refused_writes_nothing_outside(yard: Yard, data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not an uncompressed tar of plain files"):
        yard.unpack(data)


def rewritten(*changes: Callable[[bytearray], None]) -> bytes:
    """A tar of one file with its header changed, and a checksum that is right."""
    data = bytearray(tar_of(file("a"), form=tarfile.GNU_FORMAT))
    for change in changes:
        change(data)
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    return bytes(data)


def put(place: int, text: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[place : place + len(text)] = text

    return change


@pytest.mark.parametrize(
    "data",
    [
        # CVE-2025-8194: a negative size leads Python's reader back to where it was.
        pytest.param(rewritten(put(124, b"\xff" * 12)), id="negative-size"),
        pytest.param(rewritten(put(124, b"\x80" + b"\xff" * 11)), id="huge-size"),
        pytest.param(rewritten(put(124, b"-0000000777\0")), id="signed-size"),
        pytest.param(rewritten(put(156, b"L"))[:612], id="name-of-nothing"),
        # Python's reader takes these into memory, whatever their size.
        pytest.param(rewritten(put(124, b"00001000000\0"), put(156, b"L")) + bytes(1 << 19), id="huge-name"),
        pytest.param(rewritten(put(124, b"00001000000\0"), put(156, b"x")) + bytes(1 << 19), id="huge-attributes"),
        pytest.param(rewritten(put(156, b"S")), id="sparse"),
        pytest.param(rewritten(put(156, b"5")), id="folder-with-bytes"),
        pytest.param(rewritten()[:1024] + b"x" * 512, id="what-follows-is-no-header"),
    ],
)
def test_headers_that_lie(yard: Yard, data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        yard.unpack(data)


@pytest.mark.parametrize(
    ("attributes", "is_taken"),
    [
        ({"comment": "a commit"}, True),
        ({"path": "../outside/new"}, False),
        ({"path": "b\0c"}, False),
        ({"linkpath": "b\0c"}, False),
        ({"size": "-512"}, False),
        ({"size": "9" * 30}, False),
        ({"size": "99999"}, False),
        ({"GNU.sparse.major": "1"}, False),
        ({"GNU.sparse.size": "1000000000000"}, False),
    ],
)
def test_attributes(yard: Yard, attributes: dict[str, str], is_taken: bool) -> None:
    entry, data = file("a")
    entry.pax_headers = attributes
    if is_taken:
        assert yard.unpack(tar_of((entry, data))) == {"a": b"x"}
    else:
        with pytest.raises(InvalidArgument):
            yard.unpack(tar_of((entry, data)))


def test_members_without_end(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 20)
    monkeypatch.setattr(tar, "MAX_MEMBERS", 20)
    assert len(yard.unpack(tar_of(*(file(str(number)) for number in range(20))))) == 20
    remove_tree(yard.into)
    with pytest.raises(InvalidArgument, match="over 20 members"):
        yard.unpack(tar_of(*(file(str(number)) for number in range(21))))
    remove_tree(yard.into)
    named = rewritten(put(156, b"L"))[:1024]
    with pytest.raises(InvalidArgument, match="over 20 members"):
        yard.unpack(named * 100)


def test_it_stops_when_it_is_told_to(yard: Yard) -> None:
    (yard.path / "tar").write_bytes(tar_of(file("a", bytes(3_000_000)), file("b")))
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        unpack(yard.path / "tar", yard.into, stopping.is_set)


def test_where_links_lead() -> None:
    links = {(b"b", b"up"): b"..", (b"top",): b".", (b"far",): b"b/up/b/up/c"}
    assert not leads_out((b"b", b"up"), links)
    assert not leads_out((b"far",), links)
    assert leads_out((b"x",), {**links, (b"x",): b"b/up/../a"})
    assert leads_out((b"x",), {**links, (b"x",): b"top/top/../a"})
    assert leads_out((b"x",), {(b"x",): b"a/" * 70})


def test_links_through_links_through_links_are_told_in_time() -> None:
    links = {(b"%d" % number,): b"/".join([b"%d" % (number + 1)] * 60) for number in range(1000)}
    steps = sum(leads_out(path, links) for path in links)  # each in a bounded number of steps: a second for all
    assert steps > 900


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "c" * 100, "outside"]), min_size=1, max_size=4).map("/".join)
MEMBERS = st.lists(
    st.one_of(
        st.builds(file, NAMES, st.binary(max_size=600)),
        st.builds(folder, NAMES),
        st.builds(symlink, NAMES, NAMES),
        st.builds(hard_link, NAMES, NAMES),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=share_of(300))
@given(MEMBERS, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.data())
def test_any_tar_is_unpacked_or_refused(members: list[Member], form: int, data: st.DataObject) -> None:
    archive = bytearray(tar_of(*members, form=form))
    for place in data.draw(st.lists(st.integers(0, min(len(archive), 4096) - 1), max_size=2)):
        archive[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as path:
        yard = Yard(Path(path))
        try:
            yard.unpack(bytes(archive))
        except InvalidArgument:
            yard.is_whole()


@settings(deadline=None, max_examples=share_of(150))
@given(MEMBERS, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_is_unpacked_is_what_others_read(members: list[Member], form: int) -> None:
    archive = tar_of(*members, form=form)
    with tempfile.TemporaryDirectory() as path:
        yard = Yard(Path(path))
        try:
            found = yard.unpack(archive)
        except InvalidArgument:
            return
        with tarfile.open(fileobj=io.BytesIO(archive)) as read:
            for entry in read:
                if entry.isreg():
                    source = read.extractfile(entry)
                    assert source is not None
                    assert found[os.path.normpath(entry.name)] == source.read()


@pytest.mark.parametrize(("files", "at_once"), [(100, 0), (1500, 1)])
def test_many_files_are_flushed_to_the_disk_at_once(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, files: int, at_once: int
) -> None:
    flushed: list[str] = []
    flush, flush_all = os.fsync, unpacking._flush_all
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append("one"), flush(descriptor)))
    monkeypatch.setattr(unpacking, "_flush_all", lambda folder: (flushed.append("all"), flush_all(folder)))
    assert len(yard.unpack(tar_of(*(file(f"f{number}", b"") for number in range(files))))) == files
    # The folder itself is the last.
    assert flushed == ["one"] * min(files, unpacking.FLUSHED_ALONE) + ["all"] * at_once + ["one"]
