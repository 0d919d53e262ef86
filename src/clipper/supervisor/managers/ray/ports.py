"""The ports that containers on a node listen on: a range, so that a firewall can let it through."""

import errno
import random
import socket

from clipper.errors import ContainerFailed

PortRange = tuple[int, int]


def bind_in_range(host: str, ports: PortRange) -> socket.socket:
    """Bind a free port of a range, both ends included.

    The search begins anywhere, so that actors that start at once do not try the same ports.

    Raises:
        ContainerFailed: there is no free port.
        OSError: the address is not one of this machine.
    """
    first, last = ports
    count = last - first + 1
    begin = random.randrange(count)
    for step in range(count):
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            # Without SO_REUSEADDR: with it, two sockets that do not listen yet could have one port.
            bound.bind((host, first + (begin + step) % count))
        except OSError as error:
            bound.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return bound
    raise ContainerFailed(f"no port of {first} to {last} is free on {host}: give a wider --ray-ports")
