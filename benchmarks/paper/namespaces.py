"""A network of its own on this machine, behind a link of a given rate: that link alone leads to it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# RFC 2544 keeps 198.18.0.0/15 for measurements of networks.
NEAR, FAR = "198.18.0.1", "198.18.0.2"
# The bucket holds so much, and packets wait for it so long at most.
BURST, LATENCY = "256kb", "200ms"


class NoNamespaces(Exception):
    """This machine or user cannot make network namespaces."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a namespace.

    Attributes:
        address: of the far end.
        inside: what a command begins with that runs there.
    """

    address: str
    inside: tuple[str, ...]


@contextmanager
def behind_link(rate: str | None) -> Iterator[Link]:
    """A namespace behind a pair of virtual devices, whose near one sends at most ``rate`` (``1gbit``; None: as fast as
    it can).

    Raises:
        NoNamespaces: they need root, and a kernel with veth and the token bucket filter.
    """
    name = f"clipper-{os.getpid()}"
    near, far = f"clip{os.getpid() % 10**7}n", f"clip{os.getpid() % 10**7}f"
    inside = ("ip", "netns", "exec", name)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _run("ip", "address", "add", f"{NEAR}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run(*inside, "ip", "address", "add", f"{FAR}/30", "dev", far)
        _run(*inside, "ip", "link", "set", far, "up")
        _run(*inside, "ip", "link", "set", "lo", "up")
        if rate is not None:
            _run("tc", "qdisc", "add", "dev", near, "root", "tbf", "rate", rate, "burst", BURST, "latency", LATENCY)
        yield Link(FAR, inside)
    finally:
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except FileNotFoundError as error:
        raise NoNamespaces(f"{command[0]} is not installed: install iproute2") from error
    except subprocess.CalledProcessError as error:
        raise NoNamespaces(f"{' '.join(command)}: {error.stderr.strip()}: this needs root") from error
