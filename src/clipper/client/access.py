"""What a client shows, and whom it trusts: as the caller says, the environment, or a home on this machine."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from clipper.errors import Unavailable
from clipper.home import CERTIFICATE_NAME, Place, read_place, read_token
from clipper.hosts import is_loopback
from clipper.tls.trust import ClientTls, Trust

VARIABLE = "CLIPPER_TOKEN"
CA_VARIABLE = "CLIPPER_CA"
CERTIFICATE_VARIABLE = "CLIPPER_CLIENT_CERT"
CERTIFICATE_KEY_VARIABLE = "CLIPPER_CLIENT_KEY"

KEY_VARIABLE = "CLIPPER_API_KEY"

# Asked again after a refusal: a token may have been replaced meanwhile.
TokenSource = Callable[[], str | None]


def find_key(given: str | None) -> str | None:
    """The key for the query port: what is given, else the environment's."""
    return given or os.environ.get(KEY_VARIABLE) or None


def token_for_home(home: Path, given: str | None) -> TokenSource:
    """What is given, else the environment's, else that of ``home``."""
    chosen = given or os.environ.get(VARIABLE)
    return (lambda: chosen) if chosen else lambda: read_token(home)


def token_for_url(url: str, home: Path, given: str | None) -> TokenSource:
    """What is given, else the environment's; that of ``home`` only if its server is the one at ``url``.

    A token shown to another server would be that one's from then on.
    """
    chosen = given or os.environ.get(VARIABLE)
    if chosen is None and _is_at(home, url):
        return lambda: read_token(home)
    return lambda: chosen


def tls_for_home(home: Path, given: Trust) -> ClientTls:
    """Trusts the certificate that its server shows, and no other, unless a CA is given."""
    return ClientTls(_with_own(given, None if given.ca else home / CERTIFICATE_NAME, given.ca))


def tls_for_url(url: str, home: Path, given: Trust) -> ClientTls:
    """Trusts whom the CA that is given has signed, else the environment's, else as ``home`` does if its server is the
    one at ``url``, else the system's."""
    ca = given.ca or _path(CA_VARIABLE)
    if ca is None and _is_at(home, url):
        return tls_for_home(home, given)
    return ClientTls(_with_own(given, None, ca))


def _with_own(given: Trust, pinned: Path | None, ca: Path | None) -> Trust:
    """With the client's own certificate: that which is given, else the environment's."""
    if given.certificate is not None:
        return Trust(pinned, ca, given.certificate, given.key)
    return Trust(pinned, ca, _path(CERTIFICATE_VARIABLE), _path(CERTIFICATE_KEY_VARIABLE))


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def running_place(home: Path) -> Place:
    """Where the server of ``home`` is.

    Raises:
        Unavailable: none runs there. What listens at its port by now may be anyone's, and gets no token to see.
    """
    place = read_place(home)
    if not Path(f"/proc/{place.pid}").exists():
        raise Unavailable(
            f"no Clipper runs in {home}: its process {place.pid} is gone; start it with clipper start, or give --url "
            f"and {VARIABLE} if it runs in a container or on another machine"
        )
    return place


def _is_at(home: Path, url: str) -> bool:
    try:
        own, other = urlsplit(running_place(home).management_url), urlsplit(url)
        same_host = own.hostname == other.hostname or (
            is_loopback(own.hostname or "") and is_loopback(other.hostname or "")
        )
        return same_host and own.port == (other.port or (443 if other.scheme == "https" else 80))
    except (Unavailable, ValueError):
        return False
