"""Which token and key the client shows: the caller's, the environment's, or a token of a home on this machine."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from clipper.errors import Unavailable
from clipper.home import Place, read_place, read_token
from clipper.hosts import is_loopback

VARIABLE = "CLIPPER_TOKEN"

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
        return same_host and own.port == (other.port or 80)
    except (Unavailable, ValueError):
        return False
