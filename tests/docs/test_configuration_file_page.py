"""docs/configuration-file.md: the example that it names, run as it says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.cli.manifest.document import MAX_BYTES
from clipper.cli.manifest_run import STEPS_AT_ONCE
from clipper.cli.process import running, wait_until_gone

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration-file.md").read_text()
EXAMPLE = ROOT / "examples" / "configuration"
FREE_PORTS = ["--query-port", "0", "--management-port", "0"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    if server := running(home):
        os.kill(server.pid, signal.SIGTERM)
        wait_until_gone(home, server.pid)


@pytest.mark.long
def test_the_example_starts_answers_and_stays_as_it_is(home: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        clipper = str(Path(sys.executable).parent / "clipper")
        environment = {**os.environ, "CLIPPER_HOME": str(home)}
        done = subprocess.run(
            [clipper, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    named = re.search(r"clipper start --config (examples/[a-z]+/clipper.yaml)", PAGE)
    assert named is not None and (ROOT / named[1]).parent == EXAMPLE
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "configuration")
    file = named[1]
    # Only what a reader would change is changed: the ports.
    assert "4 done" in run("start", "--config", file, *FREE_PORTS)
    assert "good" in run("predict", "sentiment-shadow", '"a fine and wonderful day"')
    assert run("apply", file, "--prune") == f"{file}: nothing to do\n"


def test_what_the_page_says_of_the_files_bounds() -> None:
    assert f"more than {MAX_BYTES // 2**20} MiB" in PAGE
    assert STEPS_AT_ONCE == 10 and "ten at a time" in PAGE
