import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import clipper
from clipper.cli.starting import in_turn
from clipper.errors import Conflict, Unavailable
from clipper.settings.home import Place, lock_home, read_place
from clipper.settings.start_options import StartOptions
from clipper.supervisor.backup import restore
from clipper.supervisor.folders import MAX_SOCKET_PATH_BYTES, open_home


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files. Its path is short, as that of a system is, where tmp_path's need not be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_home_is_private_and_may_be_opened_again(tmp_path: Path) -> None:
    home = open_home(tmp_path / "a" / "home")
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert home.sockets == home.run
    assert (home.python_path / "clipper").resolve() == Path(clipper.__file__).parent
    assert open_home(tmp_path / "a" / "home") == home


def test_the_link_to_the_package_follows_it(tmp_path: Path) -> None:
    link = open_home(tmp_path).python_path / "clipper"
    link.unlink()
    link.symlink_to("/an/older/clipper")
    open_home(tmp_path)
    assert link.resolve() == Path(clipper.__file__).parent


def test_sockets_are_elsewhere_if_their_path_would_be_too_long(tmp_path: Path, temporary: Path) -> None:
    home = open_home(tmp_path / ("x" * 100))
    assert home.sockets.parent == temporary
    assert home.sockets.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(home.sockets / "w1048576.sock")) <= MAX_SOCKET_PATH_BYTES
    assert open_home(tmp_path / ("x" * 100)).sockets == home.sockets
    assert open_home(tmp_path / ("y" * 100)).sockets != home.sockets
    home.remove_sockets_folder()
    assert not home.sockets.exists()


def test_a_folder_for_sockets_that_others_can_reach_is_refused(tmp_path: Path, temporary: Path) -> None:
    open_home(tmp_path / ("x" * 100)).sockets.chmod(0o755)
    with pytest.raises(Unavailable, match="not a private folder"):
        open_home(tmp_path / ("x" * 100))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nobody_blocks_a_start_by_making_the_folder_for_sockets_first(
    tmp_path: Path, temporary: Path, kind: str
) -> None:
    root = tmp_path / ("x" * 100)
    usual = open_home(root).sockets
    usual.rmdir()
    {"folder": usual.mkdir, "file": usual.touch, "link": lambda: usual.symlink_to("/")}[kind]()
    os.chown(usual, 65534, 65534, follow_symlinks=False)
    home = open_home(root)
    assert home.sockets != usual and home.sockets.parent == temporary
    assert home.sockets.lstat().st_uid == 0 and home.sockets.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(home.sockets / "w1048576.sock")) <= MAX_SOCKET_PATH_BYTES
    # Later supervisors find it, also after a stop.
    assert open_home(root).sockets == home.sockets
    home.remove_sockets_folder()
    assert open_home(root).sockets == home.sockets


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="--home"):
        open_home(tmp_path / "file" / "home")


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
NOBODY = 65534


@only_root
def test_a_home_of_another_user_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(Unavailable, match="belongs to user 65534, and this is user 0"):
        open_home(home)
    with pytest.raises(Unavailable, match="belongs to user 65534"), in_turn(home):
        raise AssertionError("no command has its turn there")
    with pytest.raises(Unavailable, match="belongs to user 65534"):
        restore(home, tmp_path / "no backup")
    assert not list(home.iterdir()) and home.stat().st_mode & 0o777 == 0o755


@only_root
def test_a_link_of_another_user_in_place_of_a_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir(mode=0o755)
    (tmp_path / "home").symlink_to(tmp_path / "etc")
    os.chown(tmp_path / "home", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(Unavailable, match="belongs to user 65534"):
        open_home(tmp_path / "home")
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755


@only_root
@pytest.mark.parametrize("name", ["token", "registry.sqlite3", "run", "logs"])
def test_what_another_user_put_into_a_home_is_refused(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    (home / name).symlink_to("/etc")
    os.chown(home / name, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(Unavailable, match=f"{name} belongs to user 65534, who may have put it"):
        open_home(home)
    # Nobody can put more there.
    assert home.stat().st_mode & 0o777 == 0o755
    (home / name).unlink()
    assert open_home(home).root == home


LOCK = """
import sys
from pathlib import Path
from clipper.settings.home import lock_home
from clipper.supervisor.folders import open_home
lock_home(open_home(Path(sys.argv[1])).root)
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_for_as_long_as_its_process_lives(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    argv = [sys.executable, "-c", LOCK, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        with pytest.raises(Conflict, match=f"pid {holder.pid}"):
            lock_home(home.root)
        holder.kill()
    os.close(lock_home(home.root))


def test_commands_find_the_place(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    place = Place(1, "http://m", "http://q", 2.0)
    home.write_place(place, StartOptions())
    assert read_place(tmp_path) == place


def test_what_gone_processes_left_is_removed_and_the_rest_kept(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    for name in ("kept", "gone"):
        (home.run / f"{name}.json").touch()
        (home.run / f"{name}.sock").touch()
        (home.scratch / name).mkdir()
    home.remove_stale({"kept"}, {str(home.run / "kept.sock")})
    left = sorted(path.name for path in [*home.run.iterdir(), *home.scratch.iterdir()])
    assert left == ["kept", "kept.json", "kept.sock", "pythonpath", "scratch"]


def test_what_an_ending_process_removes_itself_meanwhile_fails_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = open_home(tmp_path)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [folder / f"gone{pattern[1:]}"])
    home.remove_stale(set(), set())
