"""Starts a server of many models, workers and replicas in a folder, and reads what its supervisor takes."""

import contextlib
import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import servers
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.folders import open_home
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put

HOSTS = 2
INPUT_TYPE = "float64[4]"
# Everything comes up in well under a minute where the machine is free.
UP_WITHIN_S = 600.0
POLL_S = 0.02
CODE = b"def predict(inputs):\n    return [1.0 for _ in inputs]\n"


@dataclass(frozen=True, slots=True)
class Size:
    models: int
    replicas: int
    workers: int


def fill(home: Path, size: Size, digest: str) -> None:
    """Write a registry as if all had been deployed before: an application for each model, some of which learn."""
    spec = VersionSpec(digest, "import", "stub:predict")
    each = size.replicas // size.models
    with closing(SqliteRegistry(open_home(home).registry)) as registry:
        for number in range(size.models):
            name = model_name(number)
            version = VersionRecord(
                name, "1", spec, Batching(), True, each, float(number), "ready", INPUT_TYPE, warm_up_rows=0
            )
            policy = Selection("exp3") if number % 10 == 0 else Selection("single")
            application = ApplicationRecord(
                f"app-{number}", INPUT_TYPE, 100.0, "0", policy, (Link(name),), id=f"app-{number}#1"
            )
            registry.write(Put(ModelRecord(name, "1")), Put(version), Put(application))


def model_name(number: int) -> str:
    return f"model-{number}"


def artifact() -> tuple[str, bytes]:
    """The digest and the bytes of the only artifact there is."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("code/stub.py")
        entry.size = len(CODE)
        tar.addfile(entry, io.BytesIO(CODE))
    return hashlib.sha256(packed.getvalue()).hexdigest(), packed.getvalue()


class Fleet:
    """A running server. Its management API is called like that of any."""

    def __init__(self, home: Path, supervisor: int, hosts: list[int]) -> None:
        self._pid, self._hosts = supervisor, hosts
        place = json.loads((home / "supervisor.json").read_text())
        token = (home / "token").read_text().strip()
        self._api = httpx.Client(
            base_url=place["management_url"], headers={"Authorization": f"Bearer {token}"}, timeout=60.0
        )

    def close(self) -> None:
        self._api.close()

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._api.request(method, path, **arguments)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def wait_until_up(self, size: Size) -> None:
        deadline_s = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < deadline_s:
            status = self.call("GET", "/status")
            generations = {worker["generation"] for worker in status["workers"]}
            if status["replicas"].get("ready") == size.replicas and len(generations) == 1 and not status["problems"]:
                return
            time.sleep(1.0)
        found = f"replicas: {status['replicas']}, workers' generations: {sorted(generations)}"
        raise RuntimeError(f"not all was up within {UP_WITHIN_S:g} s; {found}, problems: {status['problems'][:3]}")

    def deploy(self, model: str, version: str, digest: str, replicas: int) -> float:
        """Seconds until each worker serves by the version's replicas, and it is current."""
        # Where the machine is busy with other work, a stub waits long for its turn.
        body = {
            "version": version,
            "artifact": digest,
            "loader": "import",
            "target": "stub:predict",
            "start_timeout_s": 600,
        }
        began_s = time.monotonic()
        self.call("POST", f"/models/{model}/versions", json=body | {"replicas": replicas, "input_type": INPUT_TYPE})
        while True:
            shown = self.call("GET", f"/models/{model}/versions/{version}")
            if shown["state"] == "failed":
                raise RuntimeError(f"{model}:{version} failed: {shown}")
            if shown["state"] == "ready" and shown["current"]:
                return time.monotonic() - began_s
            time.sleep(POLL_S)

    def create_application(self, name: str, model: str) -> float:
        """Seconds until each worker serves it."""
        began_s = time.monotonic()
        body = {"name": name, "input_type": INPUT_TYPE, "slo_ms": 100, "links": [{"model": model}]}
        answer = self._api.post("/applications", json=body)
        if answer.status_code == 503:  # it is stored, and a worker has not taken it in time
            while len({worker["generation"] for worker in self.call("GET", "/status")["workers"]}) > 1:
                time.sleep(POLL_S)
        elif answer.is_error:
            raise RuntimeError(f"POST /applications: {answer.status_code} {answer.text}")
        return time.monotonic() - began_s

    def read(self, path: str) -> tuple[float, float, int]:
        """Seconds until an answer is there, processor time of the supervisor for it, and its bytes."""
        before_s, began_s = self.cpu_s(), time.monotonic()
        answer = self._api.get(path)
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
        return time.monotonic() - began_s, self.cpu_s() - before_s, len(answer.content)

    def cpu_s(self) -> float:
        """Processor time of the supervisor so far."""
        return servers.processor_ns(self._pid) / 1e9

    def hosts_cpu_s(self) -> float:
        """The same, of all workers together."""
        return sum(servers.processor_ns(pid) for pid in self._hosts) / 1e9

    def memory_bytes(self) -> int:
        return servers.resident_bytes(self._pid)


@contextmanager
def fleet(folder: Path, size: Size) -> Iterator[tuple[Fleet, str]]:
    """Run one; yields it and the digest of an artifact to deploy."""
    home = folder / "home"
    digest, packed = artifact()
    fill(home, size, digest)
    stubs, hosts = folder / "stubs.sock", [folder / f"host-{number}.sock" for number in range(HOSTS)]
    with ExitStack() as stack:
        stack.enter_context(process(folder, "stubs", stubs))
        host_pids = [stack.enter_context(process(folder, "hosts", path, "--at-once")) for path in hosts]
        for path in (stubs, *hosts):
            await_path(path)
        options = ["--home", home, "--query-port", "0", "--management-port", "0", "--workers", size.workers]
        arguments = [stubs, *hosts, "--", *options]
        supervisor = stack.enter_context(process(folder, "supervisor", *arguments))
        await_path(home / "supervisor.json")
        running = stack.enter_context(closing(Fleet(home, supervisor, host_pids)))
        running.call("PUT", f"/artifacts/{digest}", content=packed, headers={"Content-Type": "application/x-tar"})
        running.wait_until_up(size)
        if any(replica["pid"] for replica in running.call("GET", "/replicas")):
            raise RuntimeError("the replicas are processes, and no stubs: find what the supervisor opens launchers by")
        if any(worker["pid"] != supervisor for worker in running.call("GET", "/status")["workers"]):
            raise RuntimeError("workers are processes of their own: find what the supervisor starts them by")
        yield running, digest


@contextmanager
def process(folder: Path, module: str, *arguments: object) -> Iterator[int]:
    command = [sys.executable, "-m", f"benchmarks.scale.{module}", *map(str, arguments)]
    with (folder / f"{module}.log").open("ab") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield started.pid
    finally:
        started.kill()
        started.wait()


def await_path(path: Path) -> None:
    """Wait until a file is there, or, if it is a socket, until somebody listens on it."""
    deadline_s = time.monotonic() + 60.0
    while time.monotonic() < deadline_s:
        if path.suffix != ".sock":
            if path.exists():
                return
        else:
            with socket.socket(socket.AF_UNIX) as line, contextlib.suppress(OSError):
                line.connect(str(path))
                return
        time.sleep(POLL_S)
    raise RuntimeError(f"{path} was not there within a minute")
