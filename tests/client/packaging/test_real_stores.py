"""Models fetched with the real libraries of stores, which are no part of the development environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def packages() -> str:
    """The folder of the packages that requirements/stores.txt pins."""
    command = ["sh", "scripts/environment.sh", "stores", "requirements/stores.txt"]
    made = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (found,) = Path(made.stdout.strip()).glob("lib/python*/site-packages")
    return str(found)


@pytest.mark.parametrize("store", ["s3", "hf", "mlflow"])
def test_a_real_store(store: str, packages: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([packages, str(ROOT / "src"), str(ROOT)]),
        "CLIPPER_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.packaging.real_stores", store, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "all of it was tried" in done.stdout, done.stderr[-3000:]
