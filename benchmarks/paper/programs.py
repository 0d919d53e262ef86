"""The C++ programs of ``cpp/``: each compiled once and kept, under a name that tells its sources."""

import subprocess
from pathlib import Path

from scripts.kept import digest, folder

SOURCES = Path(__file__).parent / "cpp"
SDK = Path(__file__).parents[2] / "sdk" / "cpp"
FLAGS = ("-std=c++20", "-O2", "-pthread", f"-I{SDK}", "-I/usr/include/jsoncpp")
LIBRARIES = {
    "coupled_server": ("-ldrogon", "-ltrantor", "-ljsoncpp", "-lonnxruntime"),
    "net_container": ("-lonnxruntime",),
}
# Headers of Drogon take a slow machine this long.
COMPILE_WITHIN_S = 300


def built(name: str) -> Path:
    """Return the program; it is compiled if that was not done before.

    Raises:
        subprocess.CalledProcessError: it cannot be compiled; the compiler's errors are on stderr.
    """
    sources = [*sorted(SOURCES.iterdir()), SDK / "clipper_container.hpp"]
    program = folder() / "programs" / f"{name}-{digest(*(path.read_bytes() for path in sources))}"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        aside = program.with_suffix(".part")
        command = ["g++", *FLAGS, str(SOURCES / f"{name}.cpp"), "-o", str(aside), *LIBRARIES[name]]
        subprocess.run(command, check=True, timeout=COMPILE_WITHIN_S)
        aside.rename(program)
    return program
