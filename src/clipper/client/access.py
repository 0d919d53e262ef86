"""Finds the token and key that a client sends and the certificates that it trusts.

They come from the caller, the environment, or a home on this machine.
"""

import os
from collections.abc import Callable
from pathlib import Path

from clipper.base.hosts import is_loopback
from clipper.base.http1 import Address
from clipper.base.tls.trust import ClientTls, Trust
from clipper.errors import InvalidArgument, Unavailable
from clipper.settings.home import CERTIFICATE_NAME, Place, is_locked, lock_holder, read_place, read_token

VARIABLE = "CLIPPER_TOKEN"
CA_VARIABLE = "CLIPPER_CA"
CERTIFICATE_VARIABLE = "CLIPPER_CLIENT_CERT"
CERTIFICATE_KEY_VARIABLE = "CLIPPER_CLIENT_KEY"

KEY_VARIABLE = "CLIPPER_API_KEY"

# Called for each call: the token may have been replaced meanwhile, or the server may have ended.
TokenSource = Callable[[], str | None]


def find_key(given: str | None) -> str | None:
    """Return the key for the query port: the given key, else the environment's."""
    return given or os.environ.get(KEY_VARIABLE) or None


def token_for_home(home: Path, given: str | None) -> TokenSource:
    """Return the given token, else the environment's, else the token of ``home`` while its server runs."""
    chosen = given or os.environ.get(VARIABLE)

    def find() -> str | None:
        running_place(home)
        return chosen or read_token(home)

    return find


def token_for_url(url: str, home: Path, given: str | None) -> TokenSource:
    """Return the given token, else the environment's, else the token of ``home`` if its server is at ``url``.

    The token is withheld from other servers, which could use it.
    """
    chosen = given or os.environ.get(VARIABLE)
    if chosen is None and _is_at(home, url):
        return token_for_home(home, None)
    return lambda: chosen


def tls_for_home(home: Path, given: Trust) -> ClientTls:
    """Trust only the certificate of the home's server, unless a CA is given."""
    return ClientTls(_with_own(given, None if given.ca else home / CERTIFICATE_NAME, given.ca))


def tls_for_url(url: str, home: Path, given: Trust) -> ClientTls:
    """Trust the given CA, else the environment's, else the system's.

    If the server at ``url`` is that of ``home`` and no CA is named, only that server's certificate is trusted.
    """
    ca = given.ca or _path(CA_VARIABLE)
    if ca is None and _is_at(home, url):
        return tls_for_home(home, given)
    return ClientTls(_with_own(given, None, ca))


def _with_own(given: Trust, pinned: Path | None, ca: Path | None) -> Trust:
    """Add the client's own certificate: the given certificate, else the environment's."""
    if given.certificate is not None:
        return Trust(pinned, ca, given.certificate, given.key)
    return Trust(pinned, ca, _path(CERTIFICATE_VARIABLE), _path(CERTIFICATE_KEY_VARIABLE))


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def running_place(home: Path) -> Place:
    """Return the address of the server of ``home``.

    Raises Unavailable if no server runs there: another program may listen at its port by now, and must not see the
    token.
    """
    place = read_place(home)
    # A running server holds the lock. Its process id alone would prove nothing: the system reuses it for other
    # processes, and keeps it until the parent has collected the exit status.
    if not (is_locked(home) and lock_holder(home) == place.pid):
        raise Unavailable(
            f"no Clipper runs in {home}: its process {place.pid} is gone; start it with clipper start, or give --url "
            f"and {VARIABLE} if it runs in a container or on another machine"
        )
    return place


def _is_at(home: Path, url: str) -> bool:
    """Whether a URL is that of a port of the server of ``home``."""
    try:
        place = running_place(home)
    except Unavailable:
        return False
    return any(_is_same(own, url) for own in (place.management_url, place.query_url))


def _is_same(url: str, given: str) -> bool:
    try:
        own, other = Address.parse(url), Address.parse(given)
    except InvalidArgument:
        return False
    return own.port == other.port and (own.host == other.host or (is_loopback(own.host) and is_loopback(other.host)))
