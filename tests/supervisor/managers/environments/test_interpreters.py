"""Interpreters are found by path and by version, and what is none is refused with those that there are."""

import os
import sys
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument
from clipper.supervisor.managers.environments.interpreters import find_interpreter, installed_packages

HERE = ".".join(map(str, sys.version_info[:3]))
MINOR = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def only_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with this Python, on PATH, and a broken link of that name before it."""
    shims, there = tmp_path / "shims", tmp_path / "bin"
    for folder in (shims, there):
        folder.mkdir()
    (shims / f"python{MINOR}").write_text("#!/bin/sh\nexit 127\n")
    (shims / f"python{MINOR}").chmod(0o755)
    (there / f"python{MINOR}").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setenv("PATH", f"{shims}:{there}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "none"))
    return there


@pytest.mark.parametrize("version", [MINOR, HERE])
def test_a_version_is_found_past_what_does_not_run(only_this: Path, version: str) -> None:
    found = find_interpreter(version)
    assert found.version == HERE
    assert Path(found.path).samefile(only_this / f"python{MINOR}")


def test_pyenvs_are_found_that_are_not_on_path(only_this: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = only_this.parent / "pyenv" / "versions" / HERE / "bin"
    folder.mkdir(parents=True)
    (folder / f"python{MINOR}").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setenv("PATH", str(only_this.parent))
    monkeypatch.setenv("PYENV_ROOT", str(only_this.parent / "pyenv"))
    assert find_interpreter(MINOR).version == HERE


def test_a_version_that_is_not_there_is_refused_with_those_that_are(only_this: Path) -> None:
    with pytest.raises(InvalidArgument, match=rf"no Python 3\.99 .* {HERE} \(.*or give the path"):
        find_interpreter("3.99")


def test_a_virtual_environment_leads_to_what_it_was_made_of() -> None:
    assert find_interpreter(sys.executable).path == os.path.realpath(sys.executable)


@pytest.mark.parametrize("path", ["/nowhere/python3", "/bin/true", "/bin/echo", "\0"])
def test_what_is_no_interpreter_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match="expected the path of one, or a version such as"):
        find_interpreter(path)


def test_an_interpreter_tells_what_it_has() -> None:
    assert "numpy" in installed_packages(sys.executable)
    with pytest.raises(InvalidArgument, match="expected a Python interpreter"):
        installed_packages("/bin/false")
