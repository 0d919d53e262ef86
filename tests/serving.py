"""The real processes that serve a query: model containers, query workers, and clients on plain sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from clipper.control import messages as control
from clipper.control.difference import Changes, Difference
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, Peer, ReplicaAddress, Snapshot, VersionSnapshot
from clipper.control.statistics import ApplicationStatistics, WorkerStatistics
from clipper.settings.application import Link
from clipper.settings.version import Batching
from clipper.supervisor.workers.ports import hold, port_of
from tests.waiting import TIMEOUT_S, until

R = TypeVar("R")

# Answers each row's sum.
SUM = "def predict(inputs):\n    return [float(row.sum()) for row in inputs]\n"
# For models that raise for a batch of which some rows are good: on a busy machine, the time in which their container
# tells the rows apart is over before it has.
TELLS_APART = "from clipper.model.runtime import evaluate\nevaluate.MAX_EXTRA_S = 1e9\n"


class Process:
    """A child whose output goes to a file; stopped at the end, by its pid."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self.log_path = log
        with log.open("ab") as output:
            command = [sys.executable, "-m", module, *arguments]
            # Beside the package, the programs of these tests.
            folders = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
            self._child = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        self.pid = self._child.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def until_logged(self, text: str) -> None:
        """Wait for a line of its log, as long as it runs."""
        until(lambda: text in self.log, failed=lambda: None if self.is_running else f"it has ended: {self.log}")

    def send(self, signal_number: int) -> None:
        self._child.send_signal(signal_number)

    def wait(self) -> int:
        return self._child.wait(TIMEOUT_S)

    def begin_to_stop(self) -> None:
        # A container may have been stopped by a signal, and would not see SIGTERM.
        for number in (signal.SIGTERM, signal.SIGCONT):
            self.send(number)

    def stop(self) -> None:
        self.begin_to_stop()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.wait()


class Container(Process):
    """One replica of ``code``, a module with ``predict``."""

    def __init__(self, folder: Path, number: int, code: str, model: str, version: str, input_type: str) -> None:
        artifact = folder / f"artifact-{number}"
        (artifact / "code").mkdir(parents=True)
        (artifact / "code" / "served.py").write_text(code)
        self.socket = folder / f"c{number}.sock"
        self.address = ReplicaAddress(f"{model}:{version}#{number}", f"unix:{self.socket}")
        arguments = {
            "listen": f"unix:{self.socket}",
            "model": model,
            "version": version,
            "artifact": str(artifact),
            "loader": "import",
            "target": "served:predict",
            "input-type": input_type,
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        super().__init__("clipper.model.runtime", flags, folder / f"container-{number}.log")

    def wait_until_ready(self) -> None:
        self.until_logged("listening on")


class LyingContainer(Process):
    """Speaks the container protocol by hand, except where it is told what else to do.

    Args:
        on_hello, on_predict: Python statements in place of the WELCOME, or of the RESULTS. They may use ``send(kind,
            id, body)``, ``raw(bytes)``, ``hang_up()``, ``welcome`` and, for a batch, ``batch``, ``rows``, ``body``.
    """

    def __init__(self, folder: Path, number: int, on_hello: str, on_predict: str) -> None:
        self.socket = folder / f"l{number}.sock"
        self.address = ReplicaAddress(f"m:1#l{number}", f"unix:{self.socket}")
        actions = {"hello": on_hello, "predict": on_predict}
        arguments = [str(self.socket), json.dumps(actions)]
        super().__init__("tests.lying_container", arguments, folder / f"liar-{number}.log")
        self.until_logged("listening on")


class RecordContainer(Process):
    """A replica that answers each record with its values; see ``tests.record_container``."""

    def __init__(self, folder: Path, number: int, model: str, input_type: str, protocol: int) -> None:
        self.socket = folder / f"r{number}.sock"
        self.address = ReplicaAddress(f"{model}:1#r{number}", f"unix:{self.socket}")
        arguments = [str(self.socket), model, input_type, str(protocol)]
        super().__init__("tests.record_container", arguments, folder / f"records-{number}.log")
        self.until_logged("listening on")


class WorkerProcess(Process):
    """A query worker that may or may not come up."""

    module = "clipper.worker"

    def __init__(self, folder: Path, index: int, port: int, **settings: Any) -> None:
        self.port = port
        self.control_path = folder / f"w{index}.sock"
        self.instance = index + 1
        config = {"index": index, "instance": self.instance, "host": "127.0.0.1", "port": port} | settings
        config.setdefault("store", f"sqlite:{folder / 'selection.sqlite3'}")
        config["control"] = str(self.control_path)
        super().__init__(self.module, ["--config", json.dumps(config)], folder / f"worker-{index}.log")


class Worker(WorkerProcess):
    """A query worker that is up, and the supervisor's end of its control channel."""

    def __init__(self, folder: Path, index: int, port: int, **settings: Any) -> None:
        super().__init__(folder, index, port, **settings)
        self.until_logged("answers on")
        self.control = ControlClient(self.control_path)
        # The generation of what ``Serving.apply`` has told it last; None if a test has told it something else since.
        self.base: int | None = None

    def apply(self, told: Snapshot | Difference) -> control.Applied:
        """Tell it, and return its answer."""
        self.base = None
        if isinstance(told, Difference):
            return self.control.ask(control.ApplyDifference(told))
        return self.control.ask(control.Apply(told))

    def statistics(self) -> WorkerStatistics:
        return self.control.ask(control.GetStatistics()).worker

    def application(self, name: str) -> ApplicationStatistics:
        return next(each for each in self.statistics().applications if each.name == name)

    def connect(self) -> "Client":
        return Client(self.port)

    def stop(self) -> None:
        self.control.close()
        super().stop()


class ControlClient:
    """Speaks the control channel as the supervisor does, one question at a time."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(str(path))
        self._framer = control.Framer()

    def ask(self, command: control.Command[R]) -> R:
        self.socket.sendall(control.encode(command))
        while True:
            for body in self.receive():
                return control.decode_reply(body, command)

    def receive(self) -> list[bytes]:
        """The bodies that are complete after one more read."""
        data = self.socket.recv(1 << 20)
        assert data, "the worker closed the control channel"
        return list(self._framer.feed(data))

    def close(self) -> None:
        self.socket.close()


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to the query port: bytes out, answers back, nothing hidden."""

    def __init__(self, port: int, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT_S)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self.socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, method: str = "POST") -> Response:
        """The next answer."""
        return read_response(self._stream, method)

    def ask(self, path: str, body: object, **headers: str) -> Response:
        self.send(post(path, body, **headers))
        return self.read()

    def end(self) -> None:
        """Send no more; still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def read_to_end(self) -> bytes:
        """The bytes that come until the other side closes."""
        return self._stream.read()

    def reset(self) -> None:
        """Go away at once, as a client that is killed with unread data."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


def read_response(stream: Any, method: str = "POST") -> Response:
    line = stream.readline()
    assert line.startswith(b"HTTP/1.1 "), f"no answer but {line!r}"
    headers: dict[str, str] = {}
    while (header := stream.readline().strip()) != b"":
        name, _, value = header.decode().partition(":")
        headers[name.lower()] = value.strip()
    status = int(line.split()[1])
    size = 0 if method == "HEAD" or status < 200 or status == 204 else int(headers["content-length"])
    body = stream.read(size)
    assert len(body) == size, "the answer was cut off"
    return Response(status, headers, body)


def post(path: str, body: object, **headers: str) -> bytes:
    """A request; ``body`` is sent as it is if it is bytes, else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, f"Content-Length: {len(raw)}"])
    return head.encode() + b"\r\n\r\n" + raw


@dataclass
class Serving:
    """A folder of processes, with the snapshot that makes them one system.

    Attributes:
        folder: short, since a unix socket's path is.
        port: kept for the workers, as the supervisor does.
    """

    folder: Path
    port: int
    workers: list[Worker] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    others: list[Process] = field(default_factory=list)
    _generation: int = 0
    _changes: Changes = field(default_factory=Changes)

    @property
    def worker(self) -> Worker:
        return self.workers[0]

    def start_worker(self, **settings: Any) -> Worker:
        worker = Worker(self.folder, len(self.workers), self.port, **settings)
        self.workers.append(worker)
        return worker

    def start_process(self, port: int) -> WorkerProcess:
        """A worker that is not waited for."""
        process = WorkerProcess(self.folder, 0, port)
        self.others.append(process)
        return process

    def start_container(
        self, code: str = SUM, model: str = "m", version: str = "1", input_type: str = "float64"
    ) -> Container:
        container = Container(self.folder, len(self.containers) + 1, code, model, version, input_type)
        self.containers.append(container)
        container.wait_until_ready()
        return container

    def start_record_container(self, model: str, input_type: str, protocol: int = 4) -> RecordContainer:
        container = RecordContainer(self.folder, len(self.others) + 1, model, input_type, protocol)
        self.others.append(container)
        return container

    def start_liar(self, on_hello: str = "send(WELCOME, 0, welcome)", on_predict: str = "pass") -> LyingContainer:
        liar = LyingContainer(self.folder, len(self.others) + 1, on_hello, on_predict)
        self.others.append(liar)
        return liar

    def apply(self, applications: Sequence[ApplicationSnapshot], models: Sequence[ModelSnapshot]) -> control.Applied:
        """Push a newer snapshot to every worker, as a difference to those that have one; the last one's answer."""
        self._generation += 1
        peers = tuple(Peer(worker.instance, str(worker.control_path)) for worker in self.workers)
        snapshot = Snapshot(self._generation, tuple(applications), tuple(models), peers)
        self._changes.follow(snapshot)
        answers = []
        for worker in self.workers:
            difference = None if worker.base is None else self._changes.since(worker.base)
            answer = worker.apply(difference or snapshot)
            answers.append(worker.apply(snapshot) if answer.needs_whole else answer)
            worker.base = answers[-1].generation
        return answers[-1]

    def stop(self) -> None:
        processes = [*self.workers, *self.containers, *self.others]
        for process in processes:
            process.begin_to_stop()
        for process in processes:
            process.stop()


@contextmanager
def serving() -> Iterator[Serving]:
    """Start processes inside the block; they end with it, and no worker may have logged a traceback."""
    with (
        tempfile.TemporaryDirectory(prefix="clipper-") as folder,
        hold("127.0.0.1", 0, "", check_free=True) as holder,
    ):
        system = Serving(Path(folder), port_of(holder))
        try:
            yield system
        finally:
            system.stop()
        for worker in system.workers:
            assert "Traceback" not in worker.log and "never retrieved" not in worker.log, worker.log


def application(name: str = "app", *models: str, **fields: Any) -> ApplicationSnapshot:
    """An application over ``models`` (``m``), with an SLO that a loaded test machine keeps."""
    settings: dict[str, Any] = {"input_type": "float64", "slo_ms": 20_000.0} | fields
    links = tuple(Link(*model.split(":")) for model in models or ("m",))
    return ApplicationSnapshot(name=name, links=links, **settings)


def version(
    *containers: Container | LyingContainer | RecordContainer, name: str = "1", **fields: Any
) -> VersionSnapshot:
    settings: dict[str, Any] = {"input_type": "float64", "batching": Batching(), "cache": False} | fields
    return VersionSnapshot(version=name, replicas=tuple(each.address for each in containers), **settings)


def model(*versions: VersionSnapshot, name: str = "m", current: str | None = "1") -> ModelSnapshot:
    return ModelSnapshot(name, current, versions)


def with_address(found: VersionSnapshot, *addresses: ReplicaAddress) -> VersionSnapshot:
    return msgspec.structs.replace(found, replicas=addresses)


def memory_bytes(pid: int) -> int:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
