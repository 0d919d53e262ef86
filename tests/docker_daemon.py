"""A real dockerd, for containers in Docker."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker

from tests.docker_base import base_tar
from tests.waiting import TIMEOUT_S, until

BASE_IMAGE = "clipper-test-base:1"
# The base image takes 140 MB, and what is built on it some kB each.
MAX_DATA = "2g"
# It needs root, which others get through sudo.
_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


class DockerDaemon:
    """A dockerd with all its files in a folder of its own. It has the host's network, and those that tests make."""

    def __init__(self, folder: Path, max_data: str = MAX_DATA) -> None:
        self._folder = folder
        self._max_data = max_data
        self.host = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.host}

    def start(self) -> None:
        program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "dockerd is not installed: scripts/setup.sh does it"
        # In memory: a disk that others keep busy would make a second of every layer that is written.
        if not (self._folder / "data").exists():  # else it was killed
            (self._folder / "data").mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={self._max_data}", "tmpfs", str(self._folder / "data")]
            subprocess.run([*_AS_ROOT, *mount], check=True)
        (self._folder / "daemon.json").write_text("{}")
        options = {
            "config-file": self._folder / "daemon.json",
            "data-root": self._folder / "data",
            "exec-root": self._folder / "exec",
            "pidfile": self._folder / "pid",
            "host": self.host,
            "group": os.getegid(),
            "bridge": "none",
            "iptables": "false",
            "ip6tables": "false",
            # Not for a test's network to change how this machine routes: Docker's proxy publishes ports without.
            "ip-forward": "false",
        }
        with (self._folder / "log").open("ab") as log:
            command = [*_AS_ROOT, program, *(f"--{name}={value}" for name, value in options.items())]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_it_answers()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """End it as a fault would: its containers go on, and the next start ends them."""
        pid = (self._folder / "pid").read_text()  # of dockerd itself, which sudo may have started
        subprocess.run([*_AS_ROOT, "kill", "-KILL", pid], check=True)
        assert self._process is not None
        self._process.wait(TIMEOUT_S)

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.host, timeout=round(TIMEOUT_S))  # 60 s by itself

    def _wait_until_it_answers(self) -> None:
        process = self._process
        assert process is not None
        until(self._answers, failed=lambda: process.poll() is not None and (self._folder / "log").read_text())

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            try:
                connection.connect(self.host.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b"200 OK" in connection.recv(64)
            except OSError:
                return False


@contextmanager
def running_daemon() -> Iterator[DockerDaemon]:
    """A dockerd that has the base image, and nothing else."""
    with empty_daemon() as daemon:
        with closing(daemon.client()) as client:
            repository, _, tag = BASE_IMAGE.partition(":")
            client.api.import_image_from_file(str(base_tar()), repository, tag)
        yield daemon


@contextmanager
def empty_daemon(max_data: str = MAX_DATA) -> Iterator[DockerDaemon]:
    """A dockerd that has no image. ``max_data``: how much of the machine's memory its files take at most."""
    folder = Path(tempfile.mkdtemp(prefix="clipper-docker-"))
    daemon = DockerDaemon(folder, max_data)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        _remove(folder)


def _remove(folder: Path) -> None:
    """It leaves mounts behind."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):
        if Path(point).is_relative_to(folder):
            subprocess.run([*_AS_ROOT, "umount", "--lazy", point], check=True)
    subprocess.run([*_AS_ROOT, "rm", "-rf", str(folder)], check=True)
