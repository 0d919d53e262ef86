import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument, NotFound
from clipper.supervisor.artifacts import Artifacts


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def file(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry, b""


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 700):
        yield data[start : start + 700]


def add(artifacts: Artifacts, data: bytes, digest: str | None = None) -> bool:
    return asyncio.run(artifacts.add(digest or hashlib.sha256(data).hexdigest(), chunks_of(data)))


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


def test_an_artifact_is_unpacked_once(artifacts: Artifacts, tmp_path: Path) -> None:
    data = tar_of(file("code/m.py", b"code"), file("data/w", bytes(5000)))
    digest = hashlib.sha256(data).hexdigest()
    assert not artifacts.has(digest)
    assert add(artifacts, data)
    assert artifacts.has(digest)
    assert (tmp_path / digest / "code" / "m.py").read_bytes() == b"code"
    assert not add(artifacts, data)
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    artifacts.remove(digest)
    assert not artifacts.has(digest)


@pytest.mark.parametrize(
    "data",
    [
        b"no tar",
        tar_of(file("../outside")),
        tar_of(link("a", "/etc")),
        tar_of(link("a", ".."), file("a/outside")),
        tar_of(file("a", bytes(5000)))[:1500],
    ],
)
def test_what_cannot_be_unpacked_safely_leaves_nothing(artifacts: Artifacts, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        add(artifacts, data)
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "outside").exists()


def test_a_body_of_another_digest_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="send it again"):
        add(artifacts, tar_of(file("a")), "ab" * 32)
    with pytest.raises(InvalidArgument, match="64 of"):
        artifacts.has("../..")
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise RuntimeError("the client went away")

    with pytest.raises(RuntimeError, match="went away"):
        asyncio.run(artifacts.add("ab" * 32, breaks_off()))
    assert list(tmp_path.iterdir()) == []


def test_paths_inside_an_artifact(artifacts: Artifacts) -> None:
    data = tar_of(file("model.joblib"), link("alias", "model.joblib"))
    digest = hashlib.sha256(data).hexdigest()
    add(artifacts, data)
    for path in ("", "model.joblib", "alias"):
        artifacts.check_inside(digest, path)
    for path in ("none", "..", "/etc/passwd", "../" + digest + "x"):
        with pytest.raises(InvalidArgument):
            artifacts.check_inside(digest, path)
    with pytest.raises(NotFound, match="PUT it"):
        artifacts.check_inside("ab" * 32, "")


def test_what_a_killed_supervisor_left_is_removed(artifacts: Artifacts, tmp_path: Path) -> None:
    data = tar_of(file("a"))
    add(artifacts, data)
    (tmp_path / ".incoming-1" / "unpacked").mkdir(parents=True)
    artifacts.remove_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == [hashlib.sha256(data).hexdigest()]
