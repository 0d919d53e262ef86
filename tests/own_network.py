"""A network of a test's own, in which packets can be dropped without hurting anybody."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
# An address that is not loopback's, since Ray takes 127.0.0.1 for a machine without a network.
ADDRESS = "10.77.0.1"


def has_own_networks() -> bool:
    """Whether this user can make networks and drop packets in them."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("iptables") is not None


@contextmanager
def own_network() -> Iterator[None]:
    """This thread, and the threads and processes that it starts, have a network with nothing but loopback.

    Raises:
        OSError: the kernel does not allow it.
    """
    with Path("/proc/thread-self/ns/net").open() as before:
        _call("unshare", _CLONE_NEWNET)
        try:
            run("ip", "link", "set", "lo", "up")
            run("ip", "address", "add", f"{ADDRESS}/24", "dev", "lo")
            run("ip", "route", "add", "default", "dev", "lo", "src", ADDRESS)
            yield
        finally:
            _call("setns", before.fileno(), _CLONE_NEWNET)


def cut(*ports: int) -> None:
    """From now on, drop every packet to and from these ports of this thread's network."""
    for port in ports:
        for end in ("--dport", "--sport"):
            run("iptables", "--append", "INPUT", "--protocol", "tcp", end, str(port), "--jump", "DROP")


def heal() -> None:
    """Let all packets through again."""
    run("iptables", "--flush", "INPUT")


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def run(*command: str) -> None:
    subprocess.run(command, check=True)
