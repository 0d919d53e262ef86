"""The wheel and the sdist: each has what it should have, and both are the same Clipper, which names its commit."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from clipper import __version__
from tests.waiting import TIMEOUT_S
from tests.wheels import ROOT, build, commit_to

IGNORED = shutil.ignore_patterns(".*", "benchmarks", "build", "dist", "tests", "__pycache__", "node_modules")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A clone of what is in this folder, which need not be one, and its commit."""
    folder = tmp_path_factory.mktemp("clone") / "clipper"
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    shutil.copy(ROOT / ".gitignore", folder)
    return folder, commit_to(folder)


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    # The list of files, in whichever order they were added.
    return {name: b"".join(sorted(data.splitlines())) if "RECORD" in name else data for name, data in found.items()}


@pytest.mark.long
def test_the_sdist_builds_the_wheel_that_the_clone_builds(tmp_path: Path, clone: tuple[Path, str]) -> None:
    wheel, sdist = build("wheel", tmp_path / "own", clone[0]), build("sdist", tmp_path / "sdist", clone[0])
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    again = build("wheel", tmp_path / "again", unpacked)
    assert again.name == wheel.name
    assert content(again) == content(wheel)
    assert content(wheel)["clipper/COMMIT"].decode() == clone[1][:8]
    # With what compiles it, for who asks for that.
    assert (unpacked / "scripts" / "build_hook.py").exists() and (unpacked / "requirements/constraints.txt").exists()
    assert not (unpacked / "tests").exists()


def test_the_wheel_has_the_package_and_its_commit_alone(tmp_path: Path, clone: tuple[Path, str]) -> None:
    package = clone[0] / "src" / "clipper"
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    found = {name for name in content(build("wheel", tmp_path, clone[0])) if ".dist-info/" not in name}
    assert found == files | {"clipper/COMMIT"}


def test_what_was_built_says_its_commit(tmp_path: Path, clone: tuple[Path, str]) -> None:
    folder, commit = clone
    with zipfile.ZipFile(build("wheel", tmp_path / "wheel", folder)) as archive:
        archive.extractall(tmp_path / "installed")
    command = [sys.executable, "-c", "from clipper.cli.main import main; main()", "--version"]
    environ = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    told = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, timeout=TIMEOUT_S, check=True)
    assert told.stdout.decode() == f"clipper {__version__} (pure Python, commit {commit[:8]})\n"


def test_a_folder_within_anothers_repository_has_no_commit_of_its_own(tmp_path: Path, clone: tuple[Path, str]) -> None:
    commit_to(tmp_path)
    inner = tmp_path / "clipper"
    shutil.copytree(clone[0], inner, ignore=shutil.ignore_patterns(".git"))
    assert "clipper/COMMIT" not in content(build("wheel", tmp_path / "wheel", inner))
