"""Where a worker's control channel listens: a unix socket of its machine, or a port of its node."""

from dataclasses import dataclass

from clipper.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def wire(self) -> str:
        """The form in snapshots and records: a path, which version 2 of the channel reads, too."""
        return self.path


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port. ``host`` is a name, or an address of IPv4 or IPv6, the latter without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"

    @property
    def wire(self) -> str:
        return str(self)


ControlAddress = UnixAddress | TcpAddress


def parse_address(text: str) -> ControlAddress:
    """Read ``unix:PATH``, ``tcp:HOST:PORT``, ``tcp:[HOST]:PORT`` or the path of a unix socket alone.

    Raises InvalidArgument if the path or the host is empty or has a zero byte, or the port is not of 1 to 65535."""
    if "\0" not in text:
        scheme, _, rest = text.partition(":")
        if scheme == "tcp":
            host, _, port = rest.rpartition(":")
            host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
            # No more than five digits: a longer number costs int() time, and is no port.
            if host and port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535:
                return TcpAddress(host, int(port))
        elif path := rest if scheme == "unix" else text:
            return UnixAddress(path)
    raise InvalidArgument(f"expected the control address unix:PATH or tcp:HOST:PORT, got {text!r}")
