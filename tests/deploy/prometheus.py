"""Debian's Prometheus and its promtool, unpacked once: nothing is installed, and no service begins to run."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.ports import keep_port
from tests.waiting import TIMEOUT_S, until
from tests.wheels import ROOT

FILES = ROOT / "deploy" / "prometheus"


@cache
def unpacked(package: str) -> Path:
    """The folder with the files of a package, and of others."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clipper" / "debian"
    subprocess.run(["sh", str(ROOT / "scripts/apt-unpack.sh"), str(folder), package], check=True, timeout=TIMEOUT_S)
    return folder


@cache
def programs() -> Path:
    """The folder of both programs."""
    found = unpacked("prometheus") / "usr" / "bin"
    if not (found / "promtool").exists():  # in Debian 12 one package has both programs
        unpacked("promtool")
    return found


def promtool(*arguments: str) -> str:
    command = [str(programs() / "promtool"), *arguments]
    done = subprocess.run(command, check=False, cwd=FILES, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """A Prometheus that scrapes."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """The answer of its API, which has to be whole and without a warning."""
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=TIMEOUT_S).json()
        assert answer["status"] == "success" and not answer.get("warnings"), (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """The series that an expression has now."""
        result: list[Any] = self.get("query", query=expression)["result"]
        return result


@contextmanager
def scraping(config: str, folder: Path) -> Iterator[Prometheus]:
    """Run it with a configuration, beside whose file stand the rules."""
    (folder / "prometheus.yml").write_text(config)
    options = {"config.file": "prometheus.yml", "storage.tsdb.path": "series"}
    command = [str(programs() / "prometheus"), *(f"--{name}={value}" for name, value in options.items())]
    path = folder / "log"
    with ExitStack() as stack:
        address = f"127.0.0.1:{stack.enter_context(keep_port()).getsockname()[1]}"
        log = stack.enter_context(path.open("wb"))
        command.append(f"--web.listen-address={address}")
        process = stack.enter_context(subprocess.Popen(command, cwd=folder, stderr=log))
        try:
            until(lambda: _is_ready(address), failed=lambda: process.poll() is not None and path.read_text())
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=TIMEOUT_S).status_code == 200
    except httpx.TransportError:
        return False
