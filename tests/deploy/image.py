"""The image of deploy/docker, built by dockerd from the Dockerfile as it stands, and containers of it.

No image can be fetched where tests run, so what the Dockerfile begins with is made here: a root file system with the
Python that runs the tests, under the name that the Dockerfile gives it. pip finds wheels there in place of an index.
"""

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from tests import wheels
from tests.docker_daemon import BASE_IMAGE
from tests.waiting import until

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SYSTEM_LIBRARIES = (
    "librt.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "libutil.so.1",
    "libm.so.6",
    "libgcc_s.so.1",
    "libz.so.1",
)
# Packages that README's first steps install and an image does not.
NOT_IN_IMAGES = ("scikit_learn", "scipy", "joblib", "threadpoolctl", "narwhals")
FREE_PORTS = (
    "--host=127.0.0.1",
    "--management-host=127.0.0.1",
    *("--query-port=0", "--management-port=0", "--grpc-port=0"),
)
COMMIT = "60f60525"
# Of a user that OpenShift chooses: it has no name, and group 0.
OF_THE_CLUSTER = 1_000_650_000


def build(client: docker.DockerClient) -> Any:
    """Build the image with ``docker build``, from the files that .dockerignore lets through.

    No compiler is in what it begins with here, so its wheel is in pure Python.
    """
    # The stage that builds the wheel begins with another image than the one that runs it.
    client.images.build(fileobj=_base(), custom_context=True, tag=f"python:{PYTHON}-slim", rm=True)
    client.images.get(f"python:{PYTHON}-slim").tag("python", PYTHON)
    arguments = {"PYTHON": PYTHON, "COMPILE": "0", "COMMIT": COMMIT}
    image, _ = client.images.build(
        path=str(wheels.ROOT),
        dockerfile="deploy/docker/Dockerfile",
        tag="clipper",
        buildargs=arguments,
        rm=True,
        pull=False,
    )
    return image


def _base() -> io.BytesIO:
    """A stand-in for ``python:X.Y-slim``: a context to build it from."""
    programs = Path(sys.executable).resolve().parent
    files = {
        "Dockerfile": f"FROM {BASE_IMAGE}\nENV PATH={programs}:/usr/bin\nCOPY pip.conf /etc/\nCOPY root wheels /\n",
        "pip.conf": "[global]\nno-index = true\nfind-links = /wheels\n",
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for wheel in wheels.needed().iterdir():
            if not wheel.name.startswith(NOT_IN_IMAGES):
                tar.add(wheel, f"wheels/wheels/{wheel.name}")
        for library in _libraries():
            tar.add(library.resolve(), f"root{library}")
    context.seek(0)
    return context


def _libraries() -> Iterator[Path]:
    """The system's libraries that every image of Python has, and wheels expect."""
    told = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    for name in SYSTEM_LIBRARIES:
        found = re.search(rf"^\s{re.escape(name)} \(libc6,[^=]*=> (\S+)$", told, re.MULTILINE)
        assert found is not None, f"{name} is not on this machine"
        # Of the file's own folder: an image has no link in place of /lib here.
        yield Path(found[1]).parent.resolve() / name


class Running:
    """A container of the image that serves."""

    def __init__(self, container: Any) -> None:
        self.container = container

    @property
    def log(self) -> str:
        return str(self.container.logs().decode())

    def run(self, *words: str, workdir: str | None = None) -> str:
        """The output of a command inside of the container."""
        code, told = self.container.exec_run(list(words), workdir=workdir)
        assert code == 0, f"{words}: {told.decode()}{self.log}"
        return str(told.decode())

    def wait_until_it_answers(self) -> dict[str, Any]:
        """Wait until a worker answers queries, as ``clipper start`` does: the management port answers before."""
        return until(self._status_with_a_worker, failed=self.why_it_ended)

    def _status_with_a_worker(self) -> dict[str, Any] | None:
        try:
            code, told = self.container.exec_run(["clipper", "status", "--json"])
        except docker.errors.APIError:  # it has ended
            return None
        status: dict[str, Any] = json.loads(told) if code == 0 else {"workers": []}
        return status if any(worker["state"] == "ready" for worker in status["workers"]) else None

    def why_it_ended(self) -> str | None:
        self.container.reload()
        return None if self.container.status == "running" else self.log

    def stop(self) -> int:
        """As ``docker stop``. Return the status that it ends with."""
        self.container.stop(timeout=100)
        return int(self.container.wait()["StatusCode"])


@contextmanager
def running(client: docker.DockerClient, arguments: Sequence[str] = (), **options: Any) -> Iterator[Running]:
    """``arguments`` are those of ``clipper``; the image's own if there are none."""
    container = client.containers.run("clipper", list(arguments) or None, detach=True, network_mode="host", **options)
    try:
        yield Running(container)
    finally:
        container.remove(force=True, v=True)
