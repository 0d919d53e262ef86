"""Batches sent to a model container as a query worker sends them, one at a time."""

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipper.model.protocol import messages
from clipper.model.protocol.frames import Kind, Splitter
from clipper.values.types import DType

# Far longer than any batch here may take.
ANSWER_WITHIN_S = 60.0
_READ_BYTES = 1 << 20


class BatchFailed(Exception):
    """A container answered a batch with an error, or with fewer outputs than it has rows."""


def address(home: Path, model: str) -> str:
    """The unix socket of the first replica of a model's version 1: it is on its command line, which Clipper records."""
    record = json.loads((home / "run" / f"{model}@1-1.json").read_text())
    argv: list[str] = record["argv"]
    return argv[argv.index("--listen") + 1].removeprefix("unix:")


class Container:
    """A connection to a replica; it serves Clipper's own meanwhile."""

    def __init__(self, path: str) -> None:
        self._frames = Splitter()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_WITHIN_S)
        self._socket.connect(path)
        self._socket.sendall(messages.encode_hello())
        self._read()

    def close(self) -> None:
        self._socket.close()

    def predict_s(self, frame: bytes, rows: int) -> float:
        """Send a batch; return the seconds until its outputs were there.

        Raises:
            BatchFailed: it has no output for each row.
        """
        began_s = time.perf_counter()
        self._socket.sendall(frame)
        kind, body = self._read()
        if kind != Kind.RESULTS:
            raise BatchFailed(messages.decode_error(body))
        results = messages.decode_results(body)
        took_s = time.perf_counter() - began_s
        if results.failures or len(results.outputs) != rows:
            raise BatchFailed(f"{len(results.outputs)} outputs for {rows} rows, {len(results.failures)} failures")
        return took_s

    def _read(self) -> tuple[int, messages.Buffer]:
        while True:
            for kind, _, body in self._frames:
                return kind, body
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise BatchFailed("the container closed the connection")
            for kind, _, body in self._frames.feed(data):
                return kind, body


def encode_batch(inputs: NDArray[Any]) -> bytes:
    """The frame of a batch, (rows, ...), of a fixed shape."""
    rows: Sequence[bytes] = [row.tobytes() for row in inputs]
    return b"".join(messages.encode_predict(1, DType.parse(inputs.dtype.name), 0, rows))
