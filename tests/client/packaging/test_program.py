"""Programs that speak the container protocol, as artifacts."""

import tarfile
from pathlib import Path

import pytest

from clipper.client.packaging.models import package
from clipper.errors import InvalidArgument

ELF = b"\x7fELF\x02\x01\x01"


def write(path: Path, content: bytes = ELF) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [("sum_container", ELF), ("run.sh", b"#!/bin/sh\n"), ("sum.jar", b"PK\x03\x04...")],
)
def test_a_program_is_packed_to_be_run(tmp_path: Path, name: str, content: bytes) -> None:
    program = write(tmp_path / name, content)
    with package(program, language="binary") as artifact:
        assert (artifact.loader, artifact.target, artifact.data) == ("binary", name, None)
        with tarfile.open(artifact.path) as tar:
            [member] = tar.getmembers()
            assert (member.name, member.mode) == (name, 0o755)


def test_its_data_goes_along_and_is_not_to_be_run(tmp_path: Path) -> None:
    program, weights = write(tmp_path / "sum"), write(tmp_path / "weights.bin", b"\0")
    with package(str(program), language="binary", data=weights) as artifact:
        assert artifact.data == "data/weights.bin"
        with tarfile.open(artifact.path) as tar:
            assert {each.name: each.mode for each in tar.getmembers()} == {"sum": 0o755, "data/weights.bin": 0o644}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("sum.cpp", b"int main", "not a program: expected an ELF executable"),
        ("sum.jar", ELF, "not a program: expected a jar"),
        ("empty", b"", "not a program"),
    ],
)
def test_what_is_no_program_is_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    with pytest.raises(InvalidArgument, match=expected):
        package(write(tmp_path / name, content), language="binary")


def test_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"the program .* cannot be read: No such file"):
        package(tmp_path / "sum", language="binary")


def test_an_object_is_no_program() -> None:
    with pytest.raises(InvalidArgument, match="expected the path of a program"):
        package(len, language="binary")


def test_a_program_without_its_language_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--language binary"):
        package(write(tmp_path / "sum_container"))
