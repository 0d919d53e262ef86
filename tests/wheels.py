"""A release's files, built from this checkout, and the wheels that it needs, which are fetched once."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
# Of Clipper's own extras, those that images and README's first steps install. dumb-init is process 1 of an image, and
# hatchling builds its wheel.
EXTRAS = ("grpc", "redis", "sklearn")
WITHIN_S = 200


def build(target: str, folder: Path, source: Path = ROOT) -> Path:
    """Build ``target``, a wheel or an sdist, as ``pip wheel`` would: in pure Python."""
    environ = {name: value for name, value in os.environ.items() if name != "HATCH_BUILD_HOOKS_ENABLE"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, env=environ, check=True, capture_output=True, timeout=WITHIN_S)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def commit_to(folder: Path) -> str:
    """Make a repository of this folder, with an empty commit, and return that."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def needed() -> Path:
    """A folder with wheels of all that Clipper and these extras need, at the versions of constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], "dumb-init>=1.2.5", "hatchling>=1.25"]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    key = hashlib.sha256(repr((sys.version, wanted, CONSTRAINTS.read_text())).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clipper" / "wheels"
    folder = cache / f"needed-{key}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=cache))
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
        subprocess.run([*pip, "-c", str(CONSTRAINTS), "-w", str(making), *wanted], check=True, timeout=WITHIN_S)
        try:
            making.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(making)
    return folder


def install(wheel: Path, extras: str, folder: Path) -> Path:
    """Make an environment that has only this wheel and what it says that it needs. Return its ``bin``."""
    uv = [find_uv_bin(), "--quiet", "--no-config", "--offline"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True, timeout=WITHIN_S)
    python = folder / "bin" / "python"
    command = [*uv, "pip", "install", "--python", str(python), "--no-index", "--find-links", str(needed())]
    subprocess.run([*command, f"clipper-serving[{extras}] @ {wheel.as_uri()}"], check=True, timeout=WITHIN_S)
    return python.parent
