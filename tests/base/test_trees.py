"""Trees that are sealed: by their owner against mistakes, and by root against who had them."""

import os
import stat
from pathlib import Path

import pytest

from clipper.base.trees import MAX_DEPTH, is_sealed, remove_tree, seal_tree

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root takes files from others")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    for name, bits in (("bin/run", 0o700), ("data", 0o600), ("open", 0o666), ("setuid", 0o6755)):
        (tree / name).touch()
        (tree / name).chmod(bits)
    (tmp_path / "outside").touch(0o600)
    (tmp_path / "folder").mkdir(0o700)
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "folder").symlink_to(tmp_path / "folder")
    return tree


def test_a_sealed_tree_is_read_by_all_written_by_none_and_removed(tree: Path) -> None:
    assert not is_sealed(tree)
    for _ in range(2):
        seal_tree(tree)
    assert is_sealed(tree)
    found = {name: mode(tree / name) for name in ("bin", "bin/run", "data", "open", "setuid")}
    assert found == {"bin": 0o555, "bin/run": 0o555, "data": 0o444, "open": 0o444, "setuid": 0o555}
    assert (mode(tree.parent / "outside"), mode(tree.parent / "folder")) == (0o600, 0o700)
    remove_tree(tree)
    assert not tree.exists() and (tree.parent / "outside").exists()


def test_a_tree_that_is_too_deep_is_not_sealed_and_can_be_removed(tmp_path: Path) -> None:
    path = root = tmp_path / "deep"
    for _ in range(MAX_DEPTH):
        path /= "d"
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="more than 100 levels"):
        seal_tree(root)
    assert not is_sealed(root)
    remove_tree(root)
    assert not root.exists()


@AS_ROOT
def test_a_tree_taken_from_a_user_is_not_its_own_and_others_files_stay(tree: Path) -> None:
    others = [tree.parent / "outside", tree.parent / "folder"]
    for path in (tree, *tree.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    # As a kernel without protected_hardlinks lets anybody do.
    os.link(others[0], tree / "hard")
    seal_tree(tree, NOBODY)
    assert [(mode(path), path.stat().st_uid) for path in others] == [(0o600, 0), (0o700, 0)]
    assert {path.lstat().st_uid for path in (tree, *tree.rglob("*")) if not path.is_symlink()} == {0}
    assert mode(tree / "bin" / "run") == 0o555


def nest(folder: Path, levels: int, mode: int = 0o700) -> None:
    """Folders in folders, whose path is longer than the kernel takes."""
    above = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=above)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=above))
        below = os.open("deep", os.O_RDONLY, dir_fd=above)
        os.fchmod(above, mode)
        os.close(above)
        above = below
    os.close(above)


@pytest.mark.parametrize("bits", [0o700, 0o555, 0o000])
def test_a_tree_of_any_depth_is_removed(tmp_path: Path, bits: int) -> None:
    root = tmp_path / "root"
    (tmp_path / "outside").mkdir(0o750)
    (tmp_path / "outside" / "file").touch()
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / ".removing-0").mkdir()
    nest(root, 3000, bits)
    remove_tree(root)
    assert not root.exists()
    assert (tmp_path / "outside" / "file").exists() and mode(tmp_path / "outside") == 0o750
    remove_tree(tmp_path / "nothing")


def test_a_link_in_place_of_a_tree_is_left(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "outside" / "file").exists()
