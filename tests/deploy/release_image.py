"""Builds a release's image on Debian's packages, in a dockerd of its own: for machines that reach no registry.

make release runs it with BASE=debian. The Dockerfile is built as it stands; Debian's Python is imported in place of
``python:X.Y``, and pip finds wheels in a folder that this serves while the image is built.
"""

import argparse
import functools
import http.server
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docker_daemon import empty_daemon
from tests.wheels import CONSTRAINTS, ROOT

TO_RUN = "python3-venv,python3-pip,ca-certificates"
TO_COMPILE = f"{TO_RUN},python3-dev,gcc,libc6-dev"
# The Dockerfile and scripts/wheel.sh install these.
NEEDED = (".[grpc,otel,redis]", "dumb-init>=1.2.5", "hatchling", "mypy", "setuptools")
# The file systems, both images, and the wheels.
MAX_DATA = "6g"


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server of the files in a folder; its address."""
    handler = functools.partial(Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def run(*words: str, **variables: str) -> str:
    done = subprocess.run(words, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def wheels(python: str, folder: Path) -> None:
    """Fetch wheels of all that the image needs, or build them, with a Python of the image's version."""
    run(python, "-m", "venv", str(folder / "fetches"))
    pip = [str(folder / "fetches/bin/python"), "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run(*pip, "-c", str(CONSTRAINTS), "-w", str(folder / "wheels"), *NEEDED)
    for own in (folder / "wheels").glob("clipper_serving-*"):
        own.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where the image goes: a tar, compressed by gzip")
    parser.add_argument("--python", default="3.13", help="the version that Debian has")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, empty_daemon(MAX_DATA) as daemon:
        docker = functools.partial(run, DOCKER_HOST=daemon.host)
        bases = []
        for argument, packages in (("BUILD_BASE", TO_COMPILE), ("BASE", TO_RUN)):
            docker("docker", "import", run("sh", "scripts/debian_root.sh", packages), argument.lower())
            bases += ["--build-arg", f"{argument}={argument.lower()}"]
        wheels(f"python{arguments.python}", Path(work))
        with served(Path(work) / "wheels") as address:
            links = ["--build-arg", f"PIP_FIND_LINKS={address}", "--build-arg", "PIP_NO_INDEX=1"]
            options = " ".join(["--network=host", *bases, *links, os.environ.get("BUILD_OPTIONS", "")])
            docker("sh", "scripts/image.sh", BUILD_OPTIONS=options, PYTHON=f"python{arguments.python}", IMAGE="clipper")
        docker("sh", "scripts/check_image.sh", "clipper", str(arguments.file.resolve()))


if __name__ == "__main__":
    main()
