"""Models fetched with the real libraries of stores, which are no part of the development environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# The version of the emulator; requirements/stores.txt has those of Python packages.
AZURITE = "3.37.0"

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


@pytest.fixture(scope="module")
def azurite() -> str:
    """The emulator of Azure's blobs, a program of Node.js."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs Node.js with npm")
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clipper" / f"azurite-{AZURITE}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"azurite@{AZURITE}"]
        subprocess.run(command, check=True)
        (folder / "complete").touch()
    return str(folder / "node_modules" / ".bin" / "azurite-blob")


@pytest.mark.parametrize("store", ["s3", "gs", "az", "oci", "hf", "mlflow"])
def test_a_real_store(store: str, packages: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([packages, str(ROOT / "src"), str(ROOT)]),
        "CLIPPER_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    if store == "az":
        environment["AZURITE"] = request.getfixturevalue("azurite")
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.packaging.real_stores", store, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "all of it was tried" in done.stdout, done.stderr[-3000:]
