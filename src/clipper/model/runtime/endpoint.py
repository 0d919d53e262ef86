"""The address on which a container listens: ``unix:PATH`` or ``tcp:HOST:PORT``."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clipper.errors import InvalidArgument

# Workers and the supervisor dial once or twice each. They wait in the kernel only while a batch runs.
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address. Either ``path`` is set, or ``host`` and ``port``; port 0 lets the system choose."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @staticmethod
    def parse(text: str) -> "Endpoint":
        """Read ``unix:PATH`` or ``tcp:HOST:PORT``. Raises InvalidArgument if the text is neither."""
        scheme, _, rest = text.partition(":")
        host, _, port = rest.rpartition(":")
        if scheme == "unix" and rest:
            return Endpoint(path=Path(rest))
        if scheme == "tcp" and host and port.isdecimal() and int(port) <= 0xFFFF:
            return Endpoint(host=host.strip("[]"), port=int(port))
        raise InvalidArgument(f"address {text!r} is malformed: expected unix:PATH or tcp:HOST:PORT")

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


@contextmanager
def listening(endpoint: Endpoint) -> Iterator[socket.socket]:
    """Listen, non-blocking, until the end of the block, which removes a unix socket. Raises OSError, which says why."""
    listener = _listen_tcp(endpoint) if endpoint.path is None else _listen_unix(endpoint.path)
    listener.setblocking(False)
    inode = _inode(endpoint.path)
    try:
        yield listener
    finally:
        listener.close()
        # Only if the file is still this process's: another process may have replaced it.
        if endpoint.path is not None and _inode(endpoint.path) == inode:
            endpoint.path.unlink(missing_ok=True)


def described(listener: socket.socket) -> str:
    """Return the address of a listener, with the port that the system chose."""
    name = listener.getsockname()
    return str(Endpoint(path=Path(name)) if isinstance(name, str) else Endpoint(host=name[0], port=name[1]))


def _listen_tcp(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    return socket.create_server((endpoint.host, endpoint.port), family=family, backlog=BACKLOG)


def _listen_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    # The mask keeps other users out from the first moment.
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a process that is gone. With anything else there, bind fails."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            # Non-blocking: a listener whose backlog is full is alive too, and would make this wait.
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except BlockingIOError:
                pass


def _inode(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        return path.lstat().st_ino
    except (FileNotFoundError, PermissionError):  # the file is gone, or its folder was closed to this process meanwhile
        return None
