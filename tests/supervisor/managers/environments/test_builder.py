"""Environments are built for real, of packages that the tests make."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from clipper.base.trees import is_sealed
from clipper.errors import ContainerFailed
from clipper.supervisor.managers.environments import builder
from clipper.supervisor.managers.environments.builder import build_environment, environments_root, remove_unneeded
from clipper.supervisor.managers.environments.interpreters import find_interpreter, installed_packages
from clipper.supervisor.managers.environments.plan import Recipe, to_remove
from tests.small_packages import SlowPackage, make_wheel, use_only
from tests.waiting import until

PYTHON = find_interpreter(sys.executable)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where environments are built; packages come from ``tmp_path``."""
    use_only(tmp_path, monkeypatch)
    return tmp_path / "environments"


def ignore(_text: str) -> None:
    pass


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


def test_an_environment_is_built_once_and_holds_what_was_asked_for(root: Path) -> None:
    make_wheel(root.parent, "small", "1.0")
    recipe, told = Recipe("small==1.0", PYTHON), []
    python = build_environment(recipe, root, told.append)
    assert python == root / recipe.key / "bin" / "python"
    assert told == [f"installing small==1.0, numpy for Python {PYTHON.version}", "installing 2 packages"]
    assert installed_packages(str(python)) == {"small": "1.0", "numpy": "2.0"}
    # No model writes to it, by mistake, and none has to compile it again. Nor is it shared with uv's cache.
    files = [path for path in python.parents[1].rglob("*") if not path.is_symlink()]
    assert is_sealed(python.parents[1]) and not [path for path in files if path.stat().st_mode & 0o222]
    assert list(python.parents[1].rglob("small/__pycache__/*.pyc"))
    assert {path.stat().st_nlink for path in files if path.is_file()} == {1}
    told.clear()
    assert build_environment(recipe, root, told.append) == python
    assert told == []
    assert names(root) == [recipe.key]


def test_a_package_that_does_not_exist_is_the_installers_error(root: Path) -> None:
    with pytest.raises(ContainerFailed, match=r"its environment cannot be built: .*no-such-package") as caught:
        build_environment(Recipe("no-such-package", PYTHON), root, ignore)
    assert any("no-such-package" in line for line in caught.value.log_tail)
    assert names(root) == []


def test_two_at_once_build_it_once(root: Path) -> None:
    slow = SlowPackage.make(root.parent / "slow")
    recipe, told, built = Recipe(slow.requirement, PYTHON), [], []
    threads = [
        threading.Thread(target=lambda: built.append(build_environment(recipe, root, told.append))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: slow.builds and "another process is building the same environment" in told)
    slow.let_through()
    for thread in threads:
        thread.join()
    assert built == [root / recipe.key / "bin" / "python"] * 2
    assert len(slow.builds) == 1


BUILD = """
import sys
from pathlib import Path
from clipper.supervisor.managers.environments.builder import build_environment
from clipper.supervisor.managers.environments.plan import Recipe
from clipper.supervisor.managers.environments.interpreters import find_interpreter
build_environment(Recipe(sys.argv[1], find_interpreter(sys.executable)), Path(sys.argv[2]), print)
"""


@pytest.mark.long
def test_what_a_killed_builder_left_is_waited_for_and_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_NO_CACHE", "1")  # so that it is built again
    slow = SlowPackage.make(root.parent / "slow")
    recipe, told = Recipe(slow.requirement, PYTHON), []
    with subprocess.Popen([sys.executable, "-c", BUILD, recipe.requirements, str(root)]) as builder:
        until(lambda: slow.builds)
        builder.send_signal(signal.SIGKILL)
    # Its uv lives on, and with it the lock.
    assert is_alive(slow.builds[0])
    thread = threading.Thread(target=lambda: build_environment(recipe, root, told.append))
    thread.start()
    until(lambda: "another process is building the same environment" in told)
    slow.let_through()
    until(lambda: len(slow.builds) == 2)
    slow.let_through()
    thread.join()
    assert names(root) == [recipe.key]


def test_a_build_that_takes_too_long_is_ended(root: Path) -> None:
    slow = SlowPackage.make(root.parent / "slow")
    with pytest.raises(ContainerFailed, match="it takes too long"):
        build_environment(Recipe(slow.requirement, PYTHON), root, ignore, timeout_s=1.5)
    assert names(root) == []
    for pid in slow.builds:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_least_recently_used_environment_goes_unless_it_is_in_use(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons = {name: root / name / "bin" / "python" for name in ("running", "old", "new")}
    for age_s, python in enumerate(reversed(pythons.values())):
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        used = python.parents[1] / builder._USED
        used.touch()
        os.utime(used, (1e9 - age_s, 1e9 - age_s))
    (root / ".building-killed").mkdir()
    monkeypatch.setattr(to_remove, "__defaults__", (1,))
    with subprocess.Popen([pythons["running"], "-c", "input()"], stdin=subprocess.PIPE) as process:
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(os.fsencode(root)))
        remove_unneeded(root)
        assert names(root) == ["new", "running"]
        process.communicate(b"\n")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CLIPPER_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/environments"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/clipper/environments"),
        ({}, "~/.cache/clipper/environments"),
    ],
)
def test_where_environments_are(environ: dict[str, str], expected: str) -> None:
    assert environments_root(environ) == Path(expected).expanduser()


def test_one_that_another_process_removes_meanwhile_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([folder / "gone" / ".used"]))
    remove_unneeded(tmp_path)
