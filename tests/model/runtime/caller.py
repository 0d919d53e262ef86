"""A caller of the container protocol, and containers as real processes, for the runtime's tests."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import clipper
from clipper.model.protocol import messages
from clipper.model.protocol.columns import encode_predict_columns
from clipper.model.protocol.frames import HEADER, OLDEST_VERSION, Kind, Splitter
from clipper.model.protocol.messages import Results, Welcome
from clipper.model.protocol.typed import decode_typed_results
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.output_arrays import TypedResults
from clipper.values.records import RecordType
from clipper.values.types import DType
from tests.waiting import TIMEOUT_S, until


class Refused(Exception):
    """The container answered ERROR."""


class Caller:
    """Blocking, each wait bounded by TIMEOUT_S."""

    def __init__(self, address: str) -> None:
        self._frames = Splitter()
        self.socket = dial(address)
        self.socket.settimeout(TIMEOUT_S)

    def greet(self, token: str = "", version: int = OLDEST_VERSION) -> Welcome:
        self.socket.sendall(messages.encode_hello(token, version))
        kind, _, body = self.read()
        if kind == Kind.ERROR:
            raise Refused(messages.decode_error(body))
        return messages.decode_welcome(body, version)

    def send(self, batch_id: int, dtype: DType, rows: list[bytes]) -> None:
        self.socket.sendall(b"".join(messages.encode_predict(batch_id, dtype, 0, rows)))

    def predict_columns(self, input_type: str, *records: tuple[Any, ...], batch_id: int = 1) -> Results:
        """Send one batch of records, whose values are as ``RecordRows.row`` takes them, and wait for its results."""
        rows = RecordRows(RecordType.parse(input_type))
        columns = rows.columns([rows.row(values) for values in records])
        self.socket.sendall(b"".join(encode_predict_columns(batch_id, columns)))
        return self.results(batch_id)

    def results(self, batch_id: int) -> Results:
        kind, frame_id, body = self.read()
        assert frame_id == batch_id
        if kind == Kind.ERROR:
            raise Refused(messages.decode_error(body))
        assert kind == Kind.RESULTS
        return messages.decode_results(body)

    def typed_results(self, batch_id: int) -> TypedResults:
        kind, frame_id, body = self.read()
        assert (kind, frame_id) == (Kind.TYPED_RESULTS, batch_id)
        return decode_typed_results(body)

    def predict(self, values: object, dtype: DType = DType.FLOAT64, batch_id: int = 1) -> Results:
        """Send one batch of equal rows of float64 and wait for its results."""
        rows = [row.tobytes() for row in np.asarray(values, np.float64)]
        self.send(batch_id, dtype, rows)
        return self.results(batch_id)

    def ping(self, ping_id: int = 1) -> int:
        self.socket.sendall(messages.encode_ping(ping_id))
        kind, frame_id, body = self.read()
        assert (kind, frame_id) == (Kind.PONG, ping_id)
        return messages.decode_pong(body)

    def read(self) -> tuple[int, int, memoryview]:
        """Raises EOFError if the container has closed."""
        for frame in self._frames:
            return frame
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError("the container closed the connection")
            for frame in self._frames.feed(data):
                return frame


def aligned_with_other_bytes(rows: list[bytes]) -> bytes:
    """A PREDICT of three rows of float64 with id 1, between whose lengths and data no byte is 0."""
    frame = bytearray(b"".join(messages.encode_predict(1, DType.FLOAT64, 0, rows)))
    lengths_end = HEADER.size + 16 + 4 * len(rows)
    assert frame[lengths_end : lengths_end + 4] == bytes(4)
    frame[lengths_end : lengths_end + 4] = b"\xff" * 4
    return bytes(frame)


def dial(address: str) -> socket.socket:
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        unix = socket.socket(socket.AF_UNIX)
        unix.connect(rest)
        return unix
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


@dataclass
class Container:
    """A running container. ``log`` is its stdout and stderr."""

    process: subprocess.Popen[bytes]
    address: str
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def told_address(self) -> str:
        """Where it listens, once the whole line is there."""
        address, ended, _ = self.log.partition("listening on ")[2].partition("\n")
        return address if ended else ""

    @contextmanager
    def caller(self, greet: bool = True, token: str = "", version: int = OLDEST_VERSION) -> Iterator[Caller]:
        caller = Caller(self.address)
        with caller.socket:
            if greet:
                caller.greet(token, version)
            yield caller

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def wait_until_listening(self) -> None:
        self.address = until(lambda: self.told_address, failed=lambda: self.process.poll() is not None and self.log)


@contextmanager
def running(folder: Path, *options: str, listen: str | None = None, token: str = "") -> Iterator[Container]:
    """Start a container and wait until it listens."""
    with started(folder, *options, listen=listen, token=token) as container:
        container.wait_until_listening()
        yield container


@contextmanager
def started(folder: Path, *options: str, listen: str | None = None, token: str = "") -> Iterator[Container]:
    """Start a container as the supervisor does, in a folder of its own."""
    # A unix socket's path is short; a test's folder need not be.
    with tempfile.TemporaryDirectory(prefix="clipper-") as short:
        only_clipper = Path(short) / "path"
        only_clipper.mkdir()
        (only_clipper / "clipper").symlink_to(Path(clipper.__file__).parent)
        address = listen or f"unix:{short}/c.sock"
        arguments = ("--listen", address, "--model", "m", "--version", "1", "--artifact", str(folder), *options)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(only_clipper), "CLIPPER_TOKEN": token}
        log_path = folder / "container.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                (sys.executable, "-m", "clipper.model.runtime", *arguments),
                env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            yield Container(process, address, log_path)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(TIMEOUT_S)


def code(folder: Path, source: str) -> tuple[str, ...]:
    """Write a module ``served`` into an artifact; options that load its ``model``."""
    (folder / "code").mkdir()
    (folder / "code" / "served.py").write_text(source)
    return ("--loader", "import", "--target", "served:model")


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])
