"""Ports of this machine that a test gives to programs."""

import socket

from tests.waiting import until


def keep_port(host: str = "127.0.0.1") -> socket.socket:
    """Bind a port that nobody else is given, until the socket is closed: programs may listen on it all the same.

    It is kept on this address alone. On another, a connection of any program may have the same number, so who listens
    on it names the address.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    return held


def listen_once_free(port: int) -> socket.socket:
    """Listen on a port as soon as a program that has been killed is rid of it: it closes one file after the other."""

    def listener() -> socket.socket | None:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            return None

    return until(listener)
