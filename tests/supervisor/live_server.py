"""A real server, driven as an operator and an application would, over HTTP."""

import contextlib
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from clipper.settings.home import Place, read_place
from tests.waiting import TIMEOUT_S, until

# Each call of a poll would read the certificate authorities first, which takes longer than the rest; tests of TLS have
# clients of their own.
NO_TLS = False

# An application that answers from the model m.
APP: dict[str, Any] = {"name": "app", "slo_ms": 20_000, "input_type": "float64[2]", "links": [{"model": "m"}]}


def processes_of(home: Path) -> dict[int, str]:
    """The processes of a home, the supervisor aside: pid to name."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for entry in environment:
            if entry.startswith(f"CLIPPER_PROCESS={home}/run/".encode()):
                found[int(folder.name)] = entry.decode().rpartition("/")[2]
    return found


def builds_of(home: Path) -> dict[str, str]:
    """The build of each process, by its name, while processes come and go."""
    found = {}
    for path in (home / "run").glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            record = msgspec.json.decode(path.read_bytes())
            found[record["name"]] = record["extra"]["build"]
    return found


def end_all_of(home: Path) -> None:
    """Kill what runs for a home, the supervisor aside, and what was about to when the supervisor was killed."""

    def nothing_is_left() -> bool:
        found = processes_of(home)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    until(nothing_is_left)


class Server:
    """A supervisor on a home, which may be killed and started again."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.options = options
        # The words before the server's command line, of a program that starts it; without any it starts directly.
        self.through: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> "Server":
        """Start it, and wait until a worker listens, as ``clipper start`` does, or the server has ended.

        One that shares its registry may be a standby, whose workers do not listen.
        """
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(self.home)]
        # Tests of gRPC say otherwise.
        ports = ["--query-port", "0", "--management-port", "0", "--grpc-port", "off"]
        (self.home / "supervisor.json").unlink(missing_ok=True)
        with (self.home / "logs" / "supervisor.log").open("ab") as log:
            command = [*self.through, *argv, *ports, *(options or self.options)]
            self.process = subprocess.Popen(command, stderr=log)
        process = self.process
        until((self.home / "supervisor.json").exists, failed=lambda: process.poll() is not None and self.log)
        if "--registry" not in command:
            until(lambda: process.poll() is not None or self.listens())
        return self

    def listens(self) -> bool:
        """Whether a worker listens: one that has just begun may not yet."""
        url = httpx.URL(self.place.query_url)
        try:
            socket.create_connection((url.host, url.port or 80), TIMEOUT_S).close()
        except ConnectionRefusedError:
            return False
        return True

    def with_options(self, *options: str) -> "Server":
        self.options = options
        return self

    @property
    def log(self) -> str:
        return (self.home / "logs" / "supervisor.log").read_text()

    @property
    def place(self) -> Place:
        return read_place(self.home)

    @property
    def token(self) -> str:
        """The token that the management API wants to be shown."""
        return (self.home / "token").read_text().strip()

    def ask(
        self, method: str, path: str, content: bytes | None = None, kind: str = "application/json"
    ) -> httpx.Response:
        """The management API's answer, whatever it is."""
        headers = {"Authorization": f"Bearer {self.token}"} | ({} if content is None else {"Content-Type": kind})
        url = self.place.management_url + path
        return httpx.request(method, url, content=content, headers=headers, timeout=TIMEOUT_S, verify=NO_TLS)

    @property
    def metrics(self) -> str:
        """A scrape that all workers have answered: it leaves out one that takes over a second."""

        def whole() -> str | None:
            text = self.ask("GET", "/metrics").text
            return text if text.count("\nclipper_worker_up{") >= len(self.worker_pids) else None

        return until(whole)

    @property
    def worker_pids(self) -> list[int]:
        return sorted(pid for pid, name in processes_of(self.home).items() if name.startswith("worker-"))

    def until_ready(self) -> "Server":
        """Wait until each worker answers each application; the status is ready with one of each."""

        def is_ready() -> bool:
            status = self.call("GET", "/status")
            workers_ready = all(worker["state"] == "ready" for worker in status["workers"])
            return bool(status["ready"] and workers_ready and status["applications_ready"] == status["applications"])

        until(is_ready)
        return self

    def kill_workers(self) -> list[int]:
        """Kill all workers; return their successors' pids once these answer."""
        killed = self.worker_pids
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(pids := self.worker_pids) == len(killed) and not {*pids} & {*killed})
        return self.until_ready().worker_pids

    def files_with(self, text: str) -> set[Path]:
        """The files of its home that have a text, while other files come and go."""
        found = set()
        for path in self.home.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and text.encode() in path.read_bytes():
                    found.add(path)
        return found

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def clean_up(self) -> None:
        """Leave nothing running, whatever state a test left it in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        end_all_of(self.home)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)

    def call(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """Ask the management API; ``status`` None is any good one."""
        answer = self.ask(method, path, None if body is None else msgspec.json.encode(body))
        assert answer.is_success if status is None else answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def predict(self, application: str, row: Any, **fields: Any) -> Any:
        url = f"{self.place.query_url}/{application}/predict"
        return httpx.post(url, json={"input": row, **fields}, timeout=TIMEOUT_S, verify=NO_TLS).json()

    def predict_batch(self, application: str, rows: list[Any], **fields: Any) -> Any:
        url = f"{self.place.query_url}/{application}/predict"
        answer = httpx.post(url, json={"input_batch": rows, **fields}, timeout=TIMEOUT_S, verify=NO_TLS)
        return answer.json()["batch_predictions"]

    def observe(self, application: str, **fields: Any) -> httpx.Response:
        """On a connection of its own, which any worker may get."""
        url = f"{self.place.query_url}/{application}/observe"
        return httpx.post(url, json=fields, timeout=TIMEOUT_S, verify=NO_TLS)

    def kill_everything(self) -> None:
        """All processes at once, as far as that can be done."""
        pids = list(processes_of(self.home))
        self.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # such as a trial, which ends by itself
                os.kill(pid, signal.SIGKILL)

    def upload(self, code: str) -> str:
        return self.upload_files({"code/my_model.py": code.encode()})

    def upload_files(self, files: Mapping[str, bytes]) -> str:
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        digest = hashlib.sha256(tar.getvalue()).hexdigest()
        assert self.ask("PUT", f"/artifacts/{digest}", tar.getvalue(), "application/x-tar").is_success
        return digest

    def deploy(self, model: str, code: str, wait: bool = True, **fields: Any) -> Any:
        """Deploy a module with a function ``predict``; returns the version, once it has come up or failed."""
        body = {"artifact": self.upload(code), "loader": "import", "target": "my_model:predict", **fields}
        version = self.call("POST", f"/models/{model}/versions", body)
        return self.decided(model, version["version"]) if wait else version

    def decided(self, model: str, version: str) -> Any:
        def decided() -> Any:
            found = self.call("GET", f"/models/{model}/versions/{version}")
            return found if found["state"] != "starting" else None

        return until(decided)

    def ready_pids(self, model: str) -> list[int]:
        found = self.call("GET", "/replicas")
        return sorted(one["pid"] for one in found if one["model"] == model and one["state"] == "ready")


def answering(value: Any) -> str:
    """A model that answers each input with one value."""
    return f"def predict(inputs): return [{value!r} for _ in inputs]\n"


def with_application(server: Server, **fields: Any) -> Server:
    """A server that answers the application app from the model m, whose every output is "one"."""
    server.start()
    assert server.deploy("m", answering("one"), input_type="float64[2]", **fields)["state"] == "ready"
    server.call("POST", "/applications", APP)
    return server


class Own:
    """A model of a test's own on a server that others use, and an application of the same name that answers from it.

    Its first version's output is "one".
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.url = f"/models/{name}"

    def start(self, **fields: Any) -> "Own":
        assert self.deploy(answering("one"), **fields)["state"] == "ready"
        self.server.call("POST", "/applications", {**APP, "name": self.name, "links": [{"model": self.name}]})
        return self

    def deploy(self, code: str, **fields: Any) -> Any:
        return self.server.deploy(self.name, code, **{"input_type": "float64[2]", **fields})

    def call(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """``Server.call`` below the model's path."""
        return self.server.call(method, self.url + path, body, status)

    def version(self, version: str) -> Any:
        return self.call("GET", f"/versions/{version}")

    def output(self, **fields: Any) -> Any:
        """The application's answer to a query."""
        return self.server.predict(self.name, [1, 2], **fields)["output"]

    @property
    def current(self) -> str | None:
        return self.call("GET", "")["current"]

    @property
    def ready_pids(self) -> list[int]:
        return self.server.ready_pids(self.name)
