"""Decides by a request's head whether its sender may call the management API: values in, an error or nothing out.

There are three checks. ``Host`` and ``Origin`` keep out web pages in an operator's browser: a page can send requests to
127.0.0.1 as well as to any other host, and by DNS rebinding it can even read the answers. The token identifies the
caller, and its role says what the caller may do. A body has to be of a type that a page cannot send to another site
without a preflight.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clipper.base.hosts import address_of, is_every, is_loopback
from clipper.errors import Forbidden, MalformedRequest, Unauthorized, UnsupportedMediaType
from clipper.values.types import Role

JSON = "application/json"
TAR = "application/x-tar"

# These paths reveal nothing of this server, and neither probes nor readers of the API's description have a token.
_OPEN = frozenset({"/health/live", "/health/ready", "/schema", "/schema/", "/schema/openapi.json"})
_METRICS = "/metrics"
# The characters of a stranger's header that an error quotes.
_QUOTED = 100

Headers = Sequence[tuple[bytes, bytes]]


class Holder(NamedTuple):
    """The token that a request shows: its name, and its role."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Hosts:
    """The host names that mean this server.

    Attributes:
        listens_on: the host that it listens on. A loopback address stands for all loopback addresses. All addresses of
            the machine stand for any address: behind a container's or router's translation clients use an address that
            is not the machine's, and DNS rebinding needs a name.
        names: other names, in lower case: the machine's name, and names that an operator allows.
    """

    listens_on: str
    names: frozenset[str] = frozenset()

    def mean(self, host: str) -> bool:
        """Whether ``host``, without its port, means this server. A tunnel may have changed the port."""
        if host in self.names or host == self.listens_on.lower():
            return True
        address = address_of(host)
        if is_every(self.listens_on):
            return address is not None or is_loopback(host)
        if is_loopback(self.listens_on):
            return is_loopback(host)
        return address is not None and address == address_of(self.listens_on)


class Access:
    """Checks requests against the server's options and its tokens."""

    def __init__(
        self,
        hosts: Hosts,
        holder_of: Callable[[str | None], Holder | None],
        open_metrics: bool,
        pages: frozenset[str] = frozenset(),
    ) -> None:
        """
        Args:
            holder_of: returns None if a token is unknown or missing; raises Unauthorized if it has expired.
            open_metrics: whether ``/metrics`` needs no token.
            pages: paths of files that a browser loads before it has a token to send.
        """
        self._hosts = hosts
        self._holder_of = holder_of
        self._open = _OPEN | pages | ({_METRICS} if open_metrics else frozenset())

    def check(self, method: str, path: str, headers: Headers) -> Holder | None:
        """Return the token that the request shows; None where no token is needed.

        Raises:
            Forbidden: the host, the origin or the token's role is not allowed.
            Unauthorized: the token is missing, not known or expired.
            UnsupportedMediaType: the body is of another type than the call takes.
            MalformedRequest: a header came twice that may come only once.
        """
        host = _one(headers, b"host")
        self._check_host(host)
        _check_origin(_one(headers, b"origin"), host)
        holder = None if path in self._open else self._checked_holder(method, path, _one(headers, b"authorization"))
        _check_type(path, headers)
        return holder

    def _check_host(self, host: str | None) -> None:
        # A client without a Host header is not a browser, and still has to show its token.
        if host is None or self._hosts.mean(_without_port(host)):
            return
        raise Forbidden(
            f"host {host[:_QUOTED]!r} is not one that this port answers to: call it by the address that it listens on, "
            "or start the server with --allowed-host and that name"
        )

    def _checked_holder(self, method: str, path: str, authorization: str | None) -> Holder:
        scheme, _, token = (authorization or "").partition(" ")
        is_shown = scheme.lower() == "bearer" and bool(token.strip())
        holder = self._holder_of(token.strip() if is_shown else None)
        if not is_shown:
            raise Unauthorized(
                "this call needs a token, as the header 'Authorization: Bearer TOKEN': the server's own is in the file "
                "'token' of its home, and clipper token create makes others"
            )
        if holder is None:
            raise Unauthorized(
                "this server does not know the token: it may have been revoked; the server's own is in the file "
                "'token' of its home"
            )
        if holder.role != "admin" and not _may_be_read(method, path):
            raise Forbidden(
                f"a token of the role {holder.role} may only read: {method} {path[:_QUOTED]} needs one of the role "
                "admin"
            )
        return holder


def _may_be_read(method: str, path: str) -> bool:
    """Whether the role ``read`` may make this call. Only a role that may change tokens may list them."""
    first = next(filter(None, path.split("/")), "")
    return method == "GET" and first != "tokens"


def _check_origin(origin: str | None, host: str | None) -> None:
    if origin is None:
        return
    scheme, _, site = origin.lower().partition("://")
    # A proxy may have terminated TLS, so the scheme may differ.
    if scheme not in ("http", "https") or host is None or site != host.lower():
        raise Forbidden(f"a page of {origin[:_QUOTED]!r} may not call the management API: it is from another site")


def _check_type(path: str, headers: Headers) -> None:
    given = _one(headers, b"content-type")
    has_body = any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0")) for name, value in headers
    )
    if given is None and not has_body:
        return
    expected = TAR if path.startswith("/artifacts/") else JSON
    if (given or "").partition(";")[0].strip().lower() != expected:
        came = "missing" if given is None else repr(given[:_QUOTED])
        raise UnsupportedMediaType(f"content-type is {came}: expected {expected}")


def _one(headers: Headers, wanted: bytes) -> str | None:
    found = [value for name, value in headers if name == wanted]
    if len(found) > 1:
        raise MalformedRequest(f"header {wanted.decode()} came {len(found)} times: expected it once")
    return found[0].decode("latin-1").strip() if found else None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        return name.lower()
    return host.lower()


def allowed_hosts(listens_on: str, machine: str, allowed: Iterable[str]) -> Hosts:
    """Return the names of a port on ``listens_on``: its ``machine``'s, and those that the operator ``allowed``."""
    # Nobody else controls the address of the machine's own name, and a port on loopback is not reached by that name.
    own = () if is_loopback(listens_on) else (machine,)
    return Hosts(listens_on, frozenset(name.lower() for name in (*own, *allowed) if name))
