"""TCP connections whose peer may vanish silently: its machine is switched off, or the network is cut."""

import socket

# By default the kernel waits for a quarter of an hour, or for ever if there is nothing to send. A network that loses
# all packets for 5 s is of no use to a query, and a machine that only paused is back sooner.
CUT_AFTER_S = 5
_PROBE_EVERY_S = 1


def end_when_cut(connection: socket.socket) -> None:
    """Have the kernel end a connection once the peer's kernel has answered nothing for ``CUT_AFTER_S``.

    A program that is busy or stopped does not matter: its kernel answers. A listening socket passes this setting on to
    the connections that it accepts. Both sides then read ``ETIMEDOUT``, an ``OSError``.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_EVERY_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, CUT_AFTER_S // _PROBE_EVERY_S)
    # The kernel sends probes only while no sent data waits for its ACK. This option bounds both cases.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CUT_AFTER_S * 1000)
