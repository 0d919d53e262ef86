"""Hosts in options and URLs: whether a host is loopback, or stands for all addresses of the machine.

Standard library only. No name is looked up, because a check of access must not depend on what a name resolves to.
"""

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(host: str) -> _Address | None:
    """Read a host as an address, an IPv6 address with or without brackets; None if it is a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host. False for any name other than ``localhost``."""
    address = address_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_every(host: str) -> bool:
    """Whether the host stands for all addresses of the machine."""
    address = address_of(host)
    return host == "" if address is None else address.is_unspecified
