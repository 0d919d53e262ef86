"""A query port of which each connection does what a test says, and the clients of it."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from clipper.base.tls.trust import ClientTls, Trust
from clipper.client.queries import AsyncQueries, Queries
from tests.waiting import TIMEOUT_S

T = TypeVar("T")
NO_TLS = ClientTls(Trust())


class Accepted:
    """The server's end of a connection."""

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self._stream = socket.makefile("rb")

    def read(self) -> tuple[str, dict[str, str], bytes]:
        """The next request: its path, headers and body. Its client may go away instead: an EOFError."""
        line = self._stream.readline()
        if not line:
            raise EOFError
        headers = {}
        while (header := self._stream.readline().strip()) != b"":
            name, _, value = header.decode().partition(": ")
            headers[name] = value
        return line.split()[1].decode(), headers, self._stream.read(int(headers.get("content-length", 0)))

    def answer(self, body: object, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.socket.sendall(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(text), text))

    def tell_metadata(self, slo_ms: float = 10_000, datatype: str = "FP64") -> None:
        """Answer the first request of each client."""
        assert self.read()[0] == "/v2/models/app"
        inputs = [{"name": "input", "datatype": datatype, "shape": [-1, 2]}]
        self.answer({"inputs": inputs, "parameters": {"slo_ms": slo_ms}})

    def predict(self, output: object = 7) -> tuple[str, dict[str, str], bytes]:
        """Answer a prediction; return its request."""
        request = self.read()
        self.answer({"query_id": 1, "output": output, "default": False, "confidence": 1.0})
        return request

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


class ScriptedServer:
    """
    Attributes:
        accepted: connections so far.
        faults: what scripts did not expect.
    """

    def __init__(self, scripts: Sequence[Callable[[Accepted], object]], context: ssl.SSLContext | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        self.faults: list[AssertionError] = []
        self._scripts, self._context = iter(scripts), context
        self._threads: list[threading.Thread] = []
        self._connections: list[Accepted] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        for script in self._scripts:
            try:
                opened, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            opened.settimeout(TIMEOUT_S)
            thread = threading.Thread(target=self._play, args=(script, opened))
            thread.start()
            self._threads.append(thread)

    def _play(self, script: Callable[[Accepted], object], opened: socket.socket) -> None:
        try:
            if self._context is not None:
                opened = self._context.wrap_socket(opened, server_side=True)
        except OSError:
            opened.close()
            return
        connection = Accepted(opened)
        self._connections.append(connection)
        try:
            with suppress(EOFError, OSError):
                script(connection)
        except AssertionError as fault:
            self.faults.append(fault)
        finally:
            connection.close()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._accepting.join(TIMEOUT_S)
        for connection in self._connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)


@contextmanager
def scripted(*scripts: Callable[[Accepted], object], context: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    server = ScriptedServer(scripts, context)
    try:
        yield server
    finally:
        server.stop()
    assert server.faults == []


class Blocking:
    """A client whose methods block, whichever client it is."""

    def __init__(self, url: str, kind: str, tls: ClientTls = NO_TLS, api_key: str | None = None) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        make = Queries if kind == "sync" else AsyncQueries
        self.queries: Any = make(url, tls, api_key)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._runner is not None
        return self._runner.run(work)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.queries, name)
        return method if self._runner is None else lambda *given, **named: self.run(method(*given, **named))

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is None:
            self.queries._connections.close()
        else:
            self.run(self.queries.close())
            self._runner.close()
