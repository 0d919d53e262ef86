"""The script that takes the dashboard's pictures: it ends, with all of them or with a message."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT_S
from tests.wheels import ROOT

pytestmark = pytest.mark.long


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder whose path is short: the browser has a socket in it, whose path may have 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def take(folder: Path, temporary: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/dashboard_pictures.py", "--folder", str(folder), *options]
    environ = {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=4 * TIMEOUT_S, check=False
    )


def test_it_takes_every_picture_of_the_page(tmp_path: Path, temporary: Path) -> None:
    taken = take(tmp_path, temporary, "--loaded-s", "5", "--incident-s", "5")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    named = set(re.findall(r"\]\((dashboard-[a-z-]+\.png)\)", (ROOT / "docs" / "dashboard.md").read_text()))
    assert {path.name for path in tmp_path.glob("*.png")} == named
    assert "pictures of the incident are taken" in taken.stdout


def test_a_run_that_takes_too_long_fails_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    taken = take(tmp_path, temporary, "--loaded-s", "600", "--limit-s", "20")
    assert taken.returncode == 1
    assert "were not taken within 20 s: see the last step" in taken.stderr and "the server starts" in taken.stdout
    assert not list(temporary.glob("tmp*"))
