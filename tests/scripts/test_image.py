"""``make image``, with a docker and a build of wheels that only say how they were called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT_S

ROOT = Path(__file__).parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with a wheel of an older state, below a path with a space in it."""
    tree = tmp_path / "a tree"
    for folder in ("scripts", "dist", "bin"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/image.sh", tree / "scripts")
    (tree / "dist/clipper_serving-0.0.9-cp311-x.whl").touch()
    (tree / "scripts/wheel.sh").write_text('touch dist/clipper_serving-0.1.0-x.whl; echo "wheel of $PYTHON"\n')
    docker = tree / "bin/docker"
    docker.write_text('#!/bin/sh\necho docker "$@"\nls dist\n')
    docker.chmod(0o755)
    return tree


def run(tree: Path, python: str) -> "subprocess.CompletedProcess[str]":
    environ = os.environ | {"PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "PYTHON": python, "IMAGE": "mine:1"}
    command = ["sh", str(tree / "scripts/image.sh")]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_the_image_gets_the_python_of_its_wheel_and_no_other_wheel(tree: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"  # PYTHON may name several, so none has a space
    python.symlink_to(sys.executable)
    done = run(tree, str(python))
    assert done.stdout.splitlines() == [
        f"wheel of {python}",
        f"docker build -f deploy/docker/Dockerfile --build-arg PYTHON={VERSION} -t mine:1 .",
        "clipper_serving-0.1.0-x.whl",
    ]


def test_a_python_that_is_not_there(tree: Path) -> None:
    done = run(tree, "python9")
    assert done.returncode == 1 and "None of these is there: python9" in done.stderr
    assert (tree / "dist/clipper_serving-0.0.9-cp311-x.whl").exists()
