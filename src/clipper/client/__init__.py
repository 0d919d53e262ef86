"""The Python client: deploys models to a running server and asks it for predictions, over its two HTTP APIs.

    clipper = Clipper.connect()
    clipper.deploy("digits", fitted_estimator)
    clipper.create_application("digits", model="digits", slo_ms=20, default_output=0)
    clipper.predict("digits", [0.0] * 784).output

Every method may raise a ``ClipperError``: the one whose code the server answered, or ``Unavailable`` if no server
answers.
Every wait has a bound.
"""

from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import msgspec

from clipper.client.access import (
    TokenSource,
    find_key,
    running_place,
    tls_for_home,
    tls_for_url,
    token_for_home,
    token_for_url,
)
from clipper.client.applications import Applications
from clipper.client.calls import polls
from clipper.client.http_api import HttpApi
from clipper.client.keys import Keys
from clipper.client.models import Models
from clipper.client.queries import Observed, Prediction, Queries
from clipper.client.tokens import Tokens
from clipper.errors import ClipperError, DeadlineExceeded, Unauthorized, Unavailable
from clipper.home import find_home
from clipper.management.events import Event
from clipper.management.schemas import Status
from clipper.tls.trust import ClientTls, Trust

__all__ = ["STOP_TIMEOUT_S", "Clipper", "Observed", "Prediction", "Trust"]

# A drain waits for the queries in flight, and then for the containers.
STOP_TIMEOUT_S = 60.0


class Clipper(Models, Applications, Queries, Tokens, Keys):
    """A running server. Close the client, or use it in a ``with`` block, to release its connections."""

    @staticmethod
    def connect(
        url: str | None = None,
        home: Path | str | None = None,
        token: str | None = None,
        api_key: str | None = None,
        trust: Trust | None = None,
    ) -> "Clipper":
        """Find a server and check that it answers.

        Args:
            url: of its management API, e.g. ``http://host:1338``; None means the server of ``home``.
            home: its directory; None means ``CLIPPER_HOME``, or else ``~/.clipper``.
            token: for its management API; None means ``CLIPPER_TOKEN``, or else the token in the home's file, if the
                server is that of the home.
            api_key: for its query port, if that requires one; None means ``CLIPPER_API_KEY``.
            trust: over https, whose certificates to trust, and the client's own certificate; None means those that
                ``CLIPPER_CA``, ``CLIPPER_CLIENT_CERT`` and ``CLIPPER_CLIENT_KEY`` name. For a home's server it means
                exactly the certificate in the home.

        Raises:
            Unavailable: no server is there, or it does not answer.
            Unauthorized: there is no token, or the server does not know it.
        """
        found, given = find_home(home), trust or Trust()
        if url is not None:
            tls = tls_for_url(url, found, given)
            return _connect_url(url, token_for_url(url, found, token), tls, find_key(api_key))
        return _connect_home(found, token_for_home(found, token), tls_for_home(found, given), find_key(api_key))

    def close(self) -> None:
        self._management.close()
        self._queries.close()

    def __enter__(self) -> "Clipper":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def query_url(self) -> str:
        return self._queries.url

    def status(self) -> Status:
        return self._ask(Status, "GET", "/status")

    def history(self) -> list[Event]:
        """The latest events and decisions of the server, oldest first."""
        return self._ask(list[Event], "GET", "/history")

    def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return self._management.call("GET", "/metrics").decode()

    def stop(self, *, wait: bool = True) -> None:
        """Stop the server. It answers queries in flight first.

        Raises:
            DeadlineExceeded: the server still answers after ``STOP_TIMEOUT_S``.
        """
        self._management.call("POST", "/stop")
        if not wait:
            return
        for _ in polls(STOP_TIMEOUT_S):
            try:
                self._management.call("GET", "/health/live")
            except Unavailable:
                return
        raise DeadlineExceeded(f"the server still answers {STOP_TIMEOUT_S:.0f} s after it was asked to stop")


def _connect_home(home: Path, find_token: TokenSource, tls: ClientTls, api_key: str | None) -> Clipper:
    """The home's file may be that of a killed server, and another server may have its port by now."""
    place = running_place(home)
    clipper = Clipper(place.management_url, place.query_url, find_token, tls, api_key)
    try:
        there = Path(clipper.status().home)
    except Unauthorized as error:
        clipper.close()
        raise Unauthorized(
            f"the server at {place.management_url} does not know the token in CLIPPER_TOKEN or, if that is not set, "
            f"the token of {home}: {error}"
        ) from error
    except ClipperError:
        clipper.close()
        raise
    if there.resolve() != home.resolve():
        clipper.close()
        raise Unavailable(
            f"no Clipper runs in {home}: the server at {place.management_url} is that of {there}; "
            f"start it with clipper start --home {home}"
        )
    return clipper


def _connect_url(url: str, find_token: TokenSource, tls: ClientTls, api_key: str | None) -> Clipper:
    """The status has the query port. Its host is that of ``url``, since the server may know itself by another name."""
    api = HttpApi(url, find_token, tls)
    try:
        status = msgspec.json.decode(api.call("GET", "/status"), type=Status)
    finally:
        api.close()
    told, host = urlsplit(status.query_url), urlsplit(api.url).hostname or ""
    netloc = f"[{host}]:{told.port}" if ":" in host else f"{host}:{told.port}"
    return Clipper(api.url, told._replace(netloc=netloc).geturl(), find_token, tls, api_key)
