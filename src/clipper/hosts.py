"""Hosts as people write them, in options and URLs: whether they are this machine alone, and whether two are one.

Standard library only; no name is looked up: who answers for a name is not for a check of access to depend on.
"""

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(host: str) -> _Address | None:
    """The address that a host is written as, with or without an IPv6 address's brackets; None if it is a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. A name other than ``localhost`` may be anyone's, so it does not count."""
    address = address_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_every(host: str) -> bool:
    """Whether it stands for all addresses of the machine."""
    address = address_of(host)
    return host == "" if address is None else address.is_unspecified
