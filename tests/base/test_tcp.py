"""Connections end when their network is cut, also if nothing is reset."""

import errno
import socket
from collections.abc import Iterator

import pytest

from clipper.base.tcp import CUT_AFTER_S, end_when_cut
from tests.own_network import cut, has_own_networks, own_network


def connected() -> tuple[socket.socket, socket.socket]:
    """A caller's end, and the end of one that listens."""
    with socket.socket() as listener:
        end_when_cut(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        caller = socket.create_connection(listener.getsockname())
        end_when_cut(caller)
        return caller, listener.accept()[0]


def test_both_ends_are_watched_by_their_kernels() -> None:
    for end in connected():
        with end:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == CUT_AFTER_S * 1000


@pytest.fixture
def network() -> Iterator[None]:
    with own_network():
        yield


@pytest.mark.scale
@pytest.mark.machine
@pytest.mark.skipif(not has_own_networks(), reason="making a network takes root, ip and iptables")
@pytest.mark.usefixtures("network")
def test_a_cut_ends_both_ends_whoever_waits_for_an_answer() -> None:
    caller, other = connected()
    with caller, other:
        cut(other.getsockname()[1])
        caller.send(b"which nobody acknowledges")
        for end in (caller, other):  # the other has nothing to send
            end.settimeout(4 * CUT_AFTER_S)
            with pytest.raises(OSError) as caught:
                end.recv(1)
            assert caught.value.errno == errno.ETIMEDOUT
