"""The wheel and the sdist: each has what it should have, and both are the same Clipper."""

import tarfile
import zipfile
from pathlib import Path

from tests.wheels import ROOT, build


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_sdist_builds_the_wheel_that_the_checkout_builds(tmp_path: Path) -> None:
    wheel, sdist = build("wheel", tmp_path / "own"), build("sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    again = build("wheel", tmp_path / "again", unpacked)
    assert again.name == wheel.name
    assert content(again) == content(wheel)
    # With what compiles it, for who asks for that.
    assert (unpacked / "scripts" / "compile_hook.py").exists() and (unpacked / "requirements/constraints.txt").exists()
    assert not (unpacked / "tests").exists()


def test_the_wheel_has_all_files_of_the_package_and_nothing_else(tmp_path: Path) -> None:
    package = ROOT / "src" / "clipper"
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    found = {name for name in content(build("wheel", tmp_path)) if ".dist-info/" not in name}
    assert found == {name for name in files if "__pycache__" not in name}
