"""A base image for models, of the Python that runs the tests, with numpy, pip, and the shared libraries of all."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "pip")
PROGRAMS = ("sh", "cat", "env", "sleep", "mkdir", "chown", "chmod", "rm")
# Debian's pip reads them before anything else.
CERTIFICATES = tuple(path for path in (Path("/etc/ssl/certs/ca-certificates.crt"),) if path.exists())
# Of the library and packages, what no model needs.
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "__pycache__"}
_LIBRARY = re.compile(r"=> (/.+?) \(0x|^\s*(/\S+ld-linux\S+)", re.MULTILINE)


def base_tar() -> Path:
    """The image's root file system as a tar, made once for each version of what is in it."""
    versions = [sys.version, *(f"{name} {metadata.version(name)}" for name in PACKAGES), Path(__file__).read_text()]
    name = f"base-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}.tar"
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clipper" / "docker"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file, tarfile.open(fileobj=file, mode="w") as tar:
            _fill(tar)
        Path(file.name).replace(folder / name)
    return folder / name


def _fill(tar: tarfile.TarFile) -> None:
    python = Path(sys.executable).resolve()
    files = {path: path for path in (*_programs(), *CERTIFICATES, python, *_library(python))} | dict(_packages(python))
    # Packages that bring libraries find them by themselves.
    libraries = {path: path for path in shared_libraries(files) if "site-packages" not in path.parts}
    for path, name in (files | libraries).items():
        tar.add(path.resolve(), name, recursive=False)
    _add_link(tar, "usr/bin/python3", str(python))
    for name in ("bin", "lib", "lib64"):
        _add_link(tar, name, f"usr/{name}")
    _add_folder(tar, "tmp", 0o1777)


def _programs() -> Iterator[Path]:
    for name in PROGRAMS:
        found = shutil.which(name, path="/usr/bin")
        assert found, f"{name} is not in /usr/bin"
        yield Path(found)


def _library(python: Path) -> Iterator[Path]:
    yield from _files_below(_ask(python, "import sysconfig; print(sysconfig.get_path('stdlib'))"))


def _packages(python: Path) -> Iterator[tuple[Path, Path]]:
    """The packages' files, and where they are in the image: its Python knows nothing of the tests' environment."""
    place = _ask(python, "import site; print(site.getsitepackages()[0])")
    for name in PACKAGES:
        for file in metadata.files(name) or ():
            path = Path(str(file.locate()))
            if path.is_file() and ".." not in file.parts and not _is_left_out(*file.parts):
                yield path, place / file


def _ask(python: Path, program: str) -> Path:
    """A path that an interpreter prints; the one of the tests' environment would print that's."""
    told = subprocess.run([str(python), "-I", "-c", program], check=True, capture_output=True, text=True)
    return Path(told.stdout.strip())


def _files_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_out(name)]
        yield from (Path(root) / name for name in names if not _is_left_out(name))


def _is_left_out(*names: str) -> bool:
    return not LEFT_OUT.isdisjoint(names) or any(name.startswith("config-") or name.endswith(".a") for name in names)


def shared_libraries(files: Iterable[Path]) -> set[Path]:
    """The libraries that programs and libraries of this machine are linked with."""
    binaries = [str(path) for path in files if ".so" in path.name or os.access(path, os.X_OK)]
    told = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    paths = {Path(found or loader) for found, loader in _LIBRARY.findall(told)}
    # Not the folders' own links, such as /lib.
    return {path.parent.resolve() / path.name for path in paths}


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    tar.addfile(link)


def _add_folder(tar: tarfile.TarFile, name: str, mode: int) -> None:
    folder = tarfile.TarInfo(name)
    folder.type, folder.mode = tarfile.DIRTYPE, mode
    tar.addfile(folder)
