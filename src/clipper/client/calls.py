"""The parts that all methods of the client share: calls over HTTP, paths, polls."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from clipper.base.tls.trust import ClientTls
from clipper.client.access import TokenSource
from clipper.client.http_api import HttpApi
from clipper.client.packaging.artifact import Artifact
from clipper.errors import InvalidArgument, Unavailable

# The deployment's own timeout bounds the start. This bounds the rest: unpacking, linking, draining.
SETTLE_TIMEOUT_S = 60.0
# The server gives up building an environment after half an hour; it may build other environments first.
PREPARE_TIMEOUT_S = 3600.0
# Unpacking and checking 16 GiB takes minutes.
UPLOAD_TIMEOUT_S = 600.0
# A restart takes a few seconds, on a slow machine more.
AWAY_S = 30.0
# A poll costs the server about a millisecond, so a model that loads for minutes is polled at the last interval.
_FIRST_POLL_S, _LAST_POLL_S = 0.02, 0.1

T = TypeVar("T")


class Calls:
    """The management API of a running server.

    Args:
        management_url: None if only the query port is known.
        find_token: finds the token for that API.
        tls: the certificates to trust over TLS.
    """

    def __init__(self, management_url: str | None, find_token: TokenSource, tls: ClientTls) -> None:
        self._api = None if management_url is None else HttpApi(management_url, find_token, tls)

    @property
    def _management(self) -> HttpApi:
        """The management API. Raises InvalidArgument if the client knows the query port alone."""
        if self._api is None:
            raise InvalidArgument(
                "this client was connected by query_url, so it only predicts and observes: for this call connect "
                "another one by url, the management API's, e.g. http://host:1338"
            )
        return self._api

    def _ask(
        self, kind: type[T], method: str, path: str, body: Struct | None = None, timeout_s: float = SETTLE_TIMEOUT_S
    ) -> T:
        return msgspec.json.decode(self._send(method, path, body, timeout_s), type=kind)

    def _send(self, method: str, path: str, body: Struct | None, timeout_s: float = SETTLE_TIMEOUT_S) -> bytes:
        try:
            content = None if body is None else msgspec.json.encode(body, enc_hook=to_list)
        except UnicodeEncodeError as error:  # an argument of a command has bytes that are no UTF-8
            raise InvalidArgument("a text has characters that UTF-8 cannot hold: expected text in UTF-8") from error
        return self._management.call(method, path, content, timeout_s)

    def _upload(self, artifact: Artifact, report: Callable[[str], None]) -> None:
        path = f"/artifacts/{artifact.digest}"
        if self._management.has(path):
            report("the server has this artifact already")
            return
        report(f"sending {artifact.size_bytes / 1e6:.1f} MB")
        self._management.call("PUT", path, artifact.chunks(), UPLOAD_TIMEOUT_S)


def to_list(value: Any) -> Any:
    """Convert numpy arrays and scalars, without importing numpy."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def part(name: str) -> str:
    return quote(name, safe="")


def query_string(parameters: Mapping[str, object]) -> str:
    """Return the query string of the parameters that are not None. A list repeats its parameter."""
    given = {name: value for name, value in parameters.items() if value is not None}
    text = urlencode(given, doseq=True, quote_via=quote, safe="")
    return f"?{text}" if text else ""


def polls(timeout_s: float) -> Iterator[None]:
    """Yield at growing intervals until the time is over, at least once."""
    deadline_s, interval_s = time.monotonic() + timeout_s, _FIRST_POLL_S
    while True:
        yield
        if time.monotonic() >= deadline_s:
            return
        time.sleep(interval_s)
        interval_s = min(interval_s * 1.5, _LAST_POLL_S)


def ignore(_text: str) -> None:
    pass


def looks(timeout_s: float, read: Callable[[], T], report: Callable[[str], None]) -> Iterator[T]:
    """Yield the results of ``read``, as often as ``polls`` allows, and at least once.

    The server may be away for a while, such as during a restart; its work goes on meanwhile. Raises
    Unavailable if it is away for longer than ``AWAY_S``, or when the time is over.
    """
    away_since_s, error = None, None
    for _ in polls(timeout_s):
        try:
            found = read()
        except Unavailable as now:
            away_since_s, error = away_since_s or time.monotonic(), now
            if time.monotonic() - away_since_s > AWAY_S:
                raise
            report(f"waiting for the server: {now}")
            continue
        away_since_s = error = None
        yield found
    if error is not None:
        raise error
