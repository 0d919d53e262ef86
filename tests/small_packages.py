"""Python packages made on the spot, for environments that are built without a network."""

import importlib.util
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# A build that it takes part in has neither.
if importlib.util.find_spec("pytest"):
    import numpy as np
    import pytest

_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

# Notes its process, and builds nothing before something is written to the pipe.
_BACKEND = """
import os, sys
from pathlib import Path
from typing import TYPE_CHECKING
sys.path.insert(0, {tests!r})
from small_packages import make_wheel

def build_wheel(folder, config_settings=None, metadata_directory=None):
    here = Path({here!r})
    with (here / "builds").open("a") as builds:
        builds.write(f"{{os.getpid()}}\\n")
    (here / "gate").read_bytes()
    return make_wheel(Path(folder), "slow", "1.0").name
"""
_PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str] | None = None) -> Path:
    """A package of these files, by their paths; if None, a module of its name that knows its version."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        **(files or {f"{name}/__init__.py": f"__version__ = {version!r}\n"}),
        f"{info}/METADATA": _METADATA.format(name=name, version=version),
        f"{info}/WHEEL": _WHEEL,
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)
    return path


def use_only(folder: Path, monkeypatch: "pytest.MonkeyPatch") -> None:
    """Set the user's pip to packages of this folder, among them one that leads to the numpy that is installed here."""
    here = folder / "installed"
    here.mkdir()
    for part in ("numpy", "numpy.libs"):
        (here / part).symlink_to(Path(np.__file__).parents[1] / part)
    make_wheel(folder, "numpy", "2.0", {"numpy-here.pth": f"{here}\n"})
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
    for name, value in {**settings, "UV_CACHE_DIR": str(folder / "uv")}.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True, slots=True)
class SlowPackage:
    """A source package whose build waits until it is let through, by whoever writes to a pipe."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "SlowPackage":
        folder.mkdir()
        (folder / "pyproject.toml").write_text(_PROJECT)
        (folder / "backend.py").write_text(_BACKEND.format(tests=str(Path(__file__).parent), here=str(folder)))
        (folder / "builds").touch()
        os.mkfifo(folder / "gate")
        return cls(folder)

    @property
    def requirement(self) -> str:
        return f"slow @ file://{self.folder}"

    @property
    def builds(self) -> list[int]:
        """The pid of each process that has begun to build it."""
        return [int(line) for line in (self.folder / "builds").read_text().splitlines()]

    def let_through(self) -> None:
        """Let the build that is under way, or is about to begin, go on."""
        (self.folder / "gate").write_bytes(b"go")
