"""A real Redis, for what learns into one."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from clipper.supervisor.workers.ports import port_of
from tests.ports import keep_port
from tests.waiting import until


class RedisServer:
    """A real redis-server of this test's own, with an append-only file; killed at the block's end, if it runs.

    Its port is kept for it, whether it runs or not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "redis.log"
        self._holder = keep_port()
        self.port = port_of(self._holder)
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
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self._folder),
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]
        with self._log.open("ab") as log:
            process = self.process = subprocess.Popen([program, *arguments, *options], stdout=log)
        until(self._answers, failed=lambda: process.poll() is not None and self._log.read_text())

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
