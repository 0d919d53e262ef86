import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from clipper.base.trees import is_sealed
from clipper.supervisor.managers.ray.artifacts import KEEP_UNUSED_S, NodeArtifacts

DIGEST = "a" * 64

OpenArtifacts = Callable[[], NodeArtifacts]


@pytest.fixture
def open_artifacts(tmp_path: Path) -> Iterator[OpenArtifacts]:
    """Opens the node's artifacts for one more actor."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(NodeArtifacts(tmp_path / "a")))


def tar_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def send(artifacts: NodeArtifacts, digest: str, tar: bytes, chunk_bytes: int = 1000) -> None:
    for start in range(0, len(tar), chunk_bytes):
        artifacts.receive(digest, tar[start : start + chunk_bytes])
    artifacts.receive(digest, b"")


def test_an_artifact_comes_once_and_nobody_writes_to_it(tmp_path: Path, open_artifacts: OpenArtifacts) -> None:
    first, second = open_artifacts(), open_artifacts()
    assert not first.keep(DIGEST) and not second.keep(DIGEST)
    tar = tar_of({"code/m.py": b"x" * 5000})
    send(first, DIGEST, tar)
    assert first.keep(DIGEST) and second.keep(DIGEST)
    assert (tmp_path / "a" / DIGEST / "code" / "m.py").read_bytes() == b"x" * 5000
    assert is_sealed(tmp_path / "a" / DIGEST)
    # One that sends it at the same time loses nothing by it, and nothing is left of its copy.
    send(second, DIGEST, tar)
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == [f".{DIGEST}.lock", DIGEST]


def test_a_tar_that_is_not_whole_leaves_nothing(tmp_path: Path, open_artifacts: OpenArtifacts) -> None:
    artifacts = open_artifacts()
    with pytest.raises((OSError, tarfile.TarError)):
        send(artifacts, DIGEST, tar_of({"m": b"x" * 5000})[:3000])
    assert not artifacts.keep(DIGEST)
    assert [each.name for each in (tmp_path / "a").iterdir()] == [f".{DIGEST}.lock"]


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_a_tar_does_not_reach_out_of_its_folder(tmp_path: Path, open_artifacts: OpenArtifacts, name: str) -> None:
    artifacts = open_artifacts()
    with suppress(tarfile.TarError):
        send(artifacts, DIGEST, tar_of({name: b"x"}))
    assert not (tmp_path / "outside").exists() and not Path("/outside").exists()


def test_what_nobody_has_used_for_a_week_goes_when_another_comes(tmp_path: Path, open_artifacts: OpenArtifacts) -> None:
    old, used, new = "1" * 64, "2" * 64, "3" * 64
    user = open_artifacts()
    for digest in (old, used):
        send(user, digest, tar_of({"m": b"x"}))
    # Of an actor that has ended: nothing holds its lock.
    (tmp_path / "a" / f".{old}.lock").touch()
    assert user.keep(used)
    for digest in (old, used):
        os.utime(tmp_path / "a" / f".{digest}.lock", times=(0, time.time() - KEEP_UNUSED_S - 60))
    send(open_artifacts(), new, tar_of({"m": b"x"}))
    assert not (tmp_path / "a" / old).exists()
    assert (tmp_path / "a" / used).is_dir() and (tmp_path / "a" / new).is_dir()
