"""``make image``, with a docker that only says how it was called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT_S
from tests.wheels import ROOT, commit_to


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout, below a path with a space in it."""
    tree = tmp_path / "a tree"
    for folder in ("scripts", "bin"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/image.sh", tree / "scripts")
    docker = tree / "bin/docker"
    docker.write_text('#!/bin/sh\necho docker "$@"\n')
    docker.chmod(0o755)
    return tree


def run(tree: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "PYTHON": "", "IMAGE": "", **variables}
    command = ["sh", str(tree / "scripts/image.sh")]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_the_image_gets_the_python_that_was_asked_for_and_the_commit(tree: Path) -> None:
    commit = commit_to(tree)[:8]
    assert run(tree, PYTHON="/usr/bin/python3.11", IMAGE="mine:1").stdout == (
        f"docker build -f deploy/docker/Dockerfile --build-arg PYTHON=3.11 --build-arg COMMIT={commit} -t mine:1 .\n"
    )
    options = run(tree, BUILD_OPTIONS="--network=host --build-arg BASE=ours").stdout
    assert options.startswith("docker build --network=host --build-arg BASE=ours -f deploy/docker/Dockerfile ")
    assert " --build-arg PYTHON=3.12 " in (done := run(tree).stdout) and done.endswith(" -t clipper .\n")


def test_a_python_without_its_version(tree: Path) -> None:
    done = run(tree, PYTHON="python3")
    assert done.returncode == 1 and "not python3\n" in done.stderr and done.stdout == ""
