"""The SDKs' programs: built once, and run as Clipper's manager would."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clipper.supervisor.managers.launcher import program_argv
from scripts.kept import digest, folder
from tests.model.runtime.caller import Container
from tests.waiting import TIMEOUT_S

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk"
HERE = Path(__file__).parent
VECTORS = sorted((ROOT / "proto" / "vectors").glob("*.txt"))
SOURCES = {".cpp", ".hpp", ".java", ".sh", ".txt"}
CPP_FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pthread", f"-I{SDK / 'cpp'}")

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Programs:
    """The programs that an SDK was built to. ``acting`` does what its inputs say; see acting.cpp and Acting.java."""

    sum: Path
    acting: Path
    record: Path


def run(*argv: object) -> str:
    """Run a command to its end; its output, also in the error if it fails."""
    done = subprocess.run([str(word) for word in argv], check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def kept(name: str, build: Callable[[Path], None]) -> Path:
    """The folder of what ``build`` makes of the sources as they are, with these compilers.

    It is kept for later runs: compiling takes longer than all the tests of what comes out.
    """
    place = folder() / "sdk" / f"{name}-{_sources()}"
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent))
        build(aside)
        # A run beside this one may have been quicker; both made the same.
        with suppress(OSError):
            aside.rename(place)
    return place


@cache
def _sources() -> str:
    """A digest of all that programs are built of and with."""
    files = [path for path in SDK.rglob("*") if path.suffix in SOURCES and "build" not in path.parts]
    files += [path for path in HERE.iterdir() if path.suffix in SOURCES]
    compilers = [run(tool, "--version") for tool in ("g++", "cmake", "javac")]
    return digest(*compilers, *(path.read_bytes() for path in [Path(__file__), *sorted(files)]))


def build_cpp(folder: Path) -> None:
    run("cmake", "-S", SDK / "cpp", "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror")
    run("cmake", "--build", folder)
    compile_cpp(HERE / "acting.cpp", folder / "acting", "-O2")


def compile_cpp(source: Path, program: Path, *flags: str) -> None:
    run("g++", *CPP_FLAGS, *flags, source, "-o", program)


def build_java(folder: Path) -> None:
    run(SDK / "java" / "build.sh", folder)
    classes, acting = folder / "classes", folder / "acting"
    run("javac", "--release", "17", "-cp", classes, "-d", acting, HERE / "Acting.java")
    jar = folder / "acting.jar"
    run("jar", "--create", "--file", jar, "--main-class", "Acting", "-C", classes, ".", "-C", acting, ".")


@contextmanager
def started(program: Path, *options: str, listen: str | None = None, token: str | None = None) -> Iterator[Container]:
    """Start a container, in a session of its own."""
    # A unix socket's path is short; a test's folder need not be.
    with tempfile.TemporaryDirectory(prefix="clipper-") as folder:
        address = listen or f"unix:{folder}/c.sock"
        environment = {"PATH": os.environ["PATH"]} | ({} if token is None else {"CLIPPER_TOKEN": token})
        log_path = Path(folder) / "container.log"
        argv = [*program_argv(program, None), "--listen", address, "--model", "m", "--version", "1", *options]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                argv, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            yield Container(process, address, log_path)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(TIMEOUT_S)


@contextmanager
def running(program: Path, *options: str, listen: str | None = None, token: str | None = None) -> Iterator[Container]:
    """Start a container and wait until it listens."""
    with started(program, *options, listen=listen, token=token) as container:
        container.wait_until_listening()
        yield container


def missing_tools() -> list[str]:
    return [tool for tool in ("g++", "cmake", "javac", "jar", "java") if shutil.which(tool) is None]
