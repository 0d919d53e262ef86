"""The ports of a server, which are bound before anything else starts."""

import socket

from clipper.base.hosts import is_every, is_loopback
from clipper.errors import Conflict


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a listening socket; ``port`` 0 is any free port. Raises Conflict, which names the ``option`` to change."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=128)
    except (OSError, OverflowError) as error:
        raise _taken(host, port, option, error) from error


def hold(host: str, port: int, option: str, check_free: bool) -> socket.socket:
    """Keep a port for the workers, which share it, without listening: none of their connections come here.

    ``check_free``: check that nobody has the port; not if workers of ours have it already. Raises Conflict like
    ``listen``.
    """
    if check_free:
        # With SO_REUSEPORT two servers could share a port unnoticed, so first bind it without.
        with listen(host, port, option) as alone:
            port = port_of(alone)
    holder = socket.socket(_family(host))
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        # SO_REUSEADDR was for connections that are closing. Kept, it would let others bind while no worker listens.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        holder.close()
        raise _taken(host, port, option, error) from error
    return holder


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def url(host: str, port: int, tls: bool = False) -> str:
    scheme = "https" if tls else "http"
    if host in ("", "0.0.0.0"):
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def url_for_others(host: str, port: int, tls: bool = False) -> str:
    """Return ``url`` for people on other machines: with this machine's name, where the host does not name it."""
    if is_every(host):
        return url(socket.gethostname(), port, tls)
    return f"{url(host, port, tls)} on {socket.gethostname()}" if is_loopback(host) else url(host, port, tls)


def address(host: str, port: int) -> str:
    """Return the host and port of ``url``, for clients that take HOST:PORT."""
    return url(host, port).partition("://")[2]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _taken(host: str, port: int, option: str, error: Exception) -> Conflict:
    return Conflict(
        f"cannot listen on {host} port {port}: {error}; stop what listens there, or choose another port with {option}"
    )
