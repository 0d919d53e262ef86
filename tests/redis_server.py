"""A real Redis, for what learns into one."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from waiting import until

START_TIMEOUT_S = 60.0


class RedisServer:
    """A real redis-server of this test's own, with an append-only file; killed at the block's end, if it runs.

    Its port is kept for it, whether it runs or not: a socket that does not listen shares it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "RedisServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._holder.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed: scripts/setup.sh does it"
        arguments = [
            "--port",
            str(self.port),
            "--dir",
            str(self._folder),
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]
        self.process = subprocess.Popen([program, *arguments, *options], stdout=subprocess.DEVNULL)
        self._wait_until_loaded()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _wait_until_loaded(self) -> None:
        process = self.process
        assert process is not None
        until(self._answers, failed=lambda: process.poll() is not None and f"redis-server ended: {process.returncode}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
