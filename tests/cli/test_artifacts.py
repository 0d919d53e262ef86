"""A home's artifacts as the tars that they were sent as."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clipper.cli.manifest_facts import write_artifact
from clipper.client.packaging.artifact import Artifact
from clipper.client.packaging.models import package
from clipper.errors import InvalidArgument, NotFound
from clipper.supervisor.artifacts.store import Artifacts
from tests.supervisor.tar_files import file, tar_of


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "artifacts").mkdir(parents=True)
    return tmp_path / "home"


def keep(home: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    asyncio.run(Artifacts(home / "artifacts").add(digest, chunks_of(data)))
    return digest


def artifact_of(folder: Path) -> Artifact:
    """A program, code, a requirements file and data in folders."""
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "weights").write_bytes(bytes(3000))
    (folder / "my_model.py").write_text("def predict(inputs): ...\n")
    return package("my_model:predict", data=folder / "data", folder=folder, requirements=["small==1.0"])


def test_the_tar_is_the_one_that_was_sent(home: Path, tmp_path: Path) -> None:
    with artifact_of(tmp_path / "model") as artifact:
        sent = artifact.path.read_bytes()
    digest = keep(home, sent)
    write_artifact(home, digest, tmp_path / "out" / "artifacts")
    written = tmp_path / "out" / "artifacts" / f"{digest}.tar"
    assert written.read_bytes() == sent
    before = written.stat()
    write_artifact(home, digest, tmp_path / "out" / "artifacts")
    assert written.stat() == before


def test_a_program_stays_one(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "serve"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with package(program, language="binary") as artifact:
        digest = keep(home, artifact.path.read_bytes())
    write_artifact(home, digest, tmp_path)
    assert hashlib.sha256((tmp_path / f"{digest}.tar").read_bytes()).hexdigest() == digest


def test_what_was_written_into_it_later_is_left_out(home: Path, tmp_path: Path) -> None:
    with artifact_of(tmp_path / "model") as artifact:
        digest = keep(home, artifact.path.read_bytes())
    code = home / "artifacts" / digest / "code"
    code.chmod(0o755)  # as root may write there anyhow
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "my_model.pyc").write_bytes(b"cached")
    write_artifact(home, digest, tmp_path)
    assert (tmp_path / f"{digest}.tar").exists()


def test_a_tar_of_another_program_cannot_be_made_again(home: Path, tmp_path: Path) -> None:
    digest = keep(home, tar_of(file("b", b"1"), file("a", b"2")))
    with pytest.raises(InvalidArgument, match="was packed by another program"):
        write_artifact(home, digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_artifact_that_is_not_there_and_a_folder_that_cannot_be(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="run this on the server's machine"):
        write_artifact(home, "0" * 64, tmp_path)
    with artifact_of(tmp_path / "model") as artifact:
        digest = keep(home, artifact.path.read_bytes())
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        write_artifact(home, digest, tmp_path / "taken")
