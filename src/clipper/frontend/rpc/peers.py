"""Hangs up on a client of gRPC, which its library offers no way to."""

import ipaddress
import os
import socket
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote

_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}


class _Descriptor:
    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)


def hang_up(peer: str) -> bool:
    """Close the connection to a client, and so all of its calls and what they hold; whether it was there.

    Args:
        peer: as grpc has it, e.g. ``ipv4:127.0.0.1:4321`` or ``ipv6:%5B::1%5D:4321``.
    """
    family, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if family not in _FAMILIES:
        return False
    wanted = ipaddress.ip_address(host.strip("[]")), int(port)
    try:
        descriptors = [int(name.name) for name in Path("/proc/self/fd").iterdir()]
    except OSError:  # none is left to look with; the client's deadline, or its going, ends its calls
        return False
    for descriptor in descriptors:
        # Of our own: whatever becomes of grpc's meanwhile, this stays the connection that is looked at.
        with suppress(OSError, ValueError), closing(_Descriptor(os.dup(descriptor))) as own:
            found = socket.socket(fileno=own.number)
            try:
                if found.family != _FAMILIES[family] or found.type != socket.SOCK_STREAM:
                    continue
                own_host, own_port, *_ = found.getpeername()
                if (ipaddress.ip_address(own_host), own_port) == wanted:
                    found.shutdown(socket.SHUT_RDWR)
                    return True
            finally:
                found.detach()
    return False
