"""The two clients: ``Clipper`` and, on an event loop, ``AsyncClipper``."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import msgspec

from clipper.api.events import Step
from clipper.api.schemas import Status, Stopping
from clipper.base.tls.trust import ClientTls, Trust
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
from clipper.client.async_connections import MAX_CONNECTIONS
from clipper.client.calls import Calls, polls, query_string
from clipper.client.http_api import HttpApi
from clipper.client.keys import Keys, Tokens
from clipper.client.models import Models
from clipper.client.queries import AsyncQueries, Queries
from clipper.client.watching import Watching
from clipper.errors import DeadlineExceeded, InvalidArgument, Unauthorized, Unavailable
from clipper.settings.home import find_home

# A drain waits for the queries in flight, then for the containers.
STOP_TIMEOUT_S = 60.0


class Clipper(Models, Applications, Queries, Tokens, Keys, Watching):
    """A running server. Close the client, or use it in a ``with`` block, to release its connections.

    Threads may share a client, and a process that was forked may go on with it.
    """

    def __init__(
        self,
        management_url: str | None,
        query_url: str,
        find_token: TokenSource,
        tls: ClientTls,
        api_key: str | None = None,
    ) -> None:
        Calls.__init__(self, management_url, find_token, tls)
        Queries.__init__(self, query_url, tls, api_key)
        self.tls = tls

    @staticmethod
    def connect(
        url: str | None = None,
        home: Path | str | None = None,
        token: str | None = None,
        api_key: str | None = None,
        trust: Trust | None = None,
        query_url: str | None = None,
    ) -> "Clipper":
        """Find a server and check that it answers.

        Args:
            url: the URL of its management API, e.g. ``http://host:1338``; None means the server of ``home``.
            home: its directory; None means ``CLIPPER_HOME``, or else ``~/.clipper``.
            token: the token for its management API; None means ``CLIPPER_TOKEN``, or else the token in the home's file,
                if the server is that of the home.
            api_key: the key for its query port, if it requires a key; None means ``CLIPPER_API_KEY``.
            trust: over https, the certificates to trust, and the client's own certificate; None means the files that
                ``CLIPPER_CA``, ``CLIPPER_CLIENT_CERT`` and ``CLIPPER_CLIENT_KEY`` name. For a home's server it means
                exactly the certificate in the home.
            query_url: the URL of its query port, e.g. ``http://host:1337``, in place of ``url``. The client then
                predicts and observes, for which it needs no token, and all other methods raise InvalidArgument.

        Raises:
            Unavailable: no server is there, or it does not answer.
            Unauthorized: there is no token, or the server does not know it.
            InvalidArgument: both URLs are given, or a text is not a URL.
        """
        found, given, key = find_home(home), trust or Trust(), find_key(api_key)
        if query_url is not None:
            if url is not None:
                raise InvalidArgument(
                    "url and query_url are both given: expected url, of the management API, which tells where the "
                    "query port is, or query_url alone"
                )
            tls = tls_for_url(query_url, found, given)
            with ExitStack() as stack:
                clipper = stack.enter_context(Clipper(None, query_url, lambda: None, tls, key))
                clipper._run(clipper._calls.check())
                stack.pop_all()
            return clipper
        if url is not None:
            return _connect_url(url, token_for_url(url, found, token), tls_for_url(url, found, given), key)
        return _connect_home(found, token_for_home(found, token), tls_for_home(found, given), key)

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
        self._connections.close()

    def __enter__(self) -> "Clipper":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self) -> Status:
        return self._ask(Status, "GET", "/status")

    def history(self) -> list[Step]:
        """Return the latest events and decisions of the server, oldest first."""
        return self._ask(list[Step], "GET", "/history")

    def metrics(
        self, *, by_worker: bool = False, applications: list[str] | None = None, models: list[str] | None = None
    ) -> str:
        """Return the server's metrics in Prometheus' text format.

        Args:
            by_worker: return each worker's own numbers instead of their sums.
            applications: return only the series of these, and of ``models``.
            models: return only the series of these, and of ``applications``.
        """
        query = {"by_worker": "true" if by_worker else None, "application": applications, "model": models}
        return self._management.call("GET", f"/metrics{query_string(query)}").decode()

    def stop(self, *, wait: bool = True) -> Stopping:
        """Stop the server. It answers queries in flight first, and all queries for its drain delay, if it has one.

        A second call ends the delay.

        Raises:
            DeadlineExceeded: the server still answers ``STOP_TIMEOUT_S`` after the delay.
        """
        stopping = self._ask(Stopping, "POST", "/stop")
        if not wait:
            return stopping
        timeout_s = stopping.drain_delay_s + STOP_TIMEOUT_S
        for _ in polls(timeout_s):
            try:
                self._management.call("GET", "/health/live")
            except Unavailable:
                return stopping
        raise DeadlineExceeded(f"the server still answers {timeout_s:.0f} s after it was asked to stop")


class AsyncClipper(AsyncQueries):
    """A running server's query port, for the tasks of an event loop.

        async with await AsyncClipper.connect() as clipper:
            await asyncio.gather(*(clipper.predict("digits", image) for image in images))

    To deploy models and create applications, use ``Clipper``, in a thread if need be. If a call is cancelled, the
    server gives up its queries, too, but still learns its feedback.
    """

    @staticmethod
    async def connect(
        url: str | None = None,
        home: Path | str | None = None,
        token: str | None = None,
        api_key: str | None = None,
        trust: Trust | None = None,
        max_connections: int = MAX_CONNECTIONS,
        query_url: str | None = None,
    ) -> "AsyncClipper":
        """Find a server and check that it answers. See ``Clipper.connect`` for arguments and errors.

        Args:
            max_connections: calls in flight at once; others wait for their turn, within their own time.
        """

        def find() -> tuple[str, ClientTls]:
            with Clipper.connect(url, home, token, api_key, trust, query_url) as clipper:
                return clipper.query_url, clipper.tls

        found_url, tls = await asyncio.to_thread(find)
        return AsyncClipper(found_url, tls, find_key(api_key), max_connections)


def _connect_home(home: Path, find_token: TokenSource, tls: ClientTls, api_key: str | None) -> Clipper:
    """Connect to a home's server. Its file may be a killed server's, and another server may have its port."""
    place = running_place(home)
    with ExitStack() as stack:
        clipper = stack.enter_context(Clipper(place.management_url, place.query_url, find_token, tls, api_key))
        try:
            there = Path(clipper.status().home)
        except Unauthorized as error:
            raise Unauthorized(
                f"the server at {place.management_url} does not know the token in CLIPPER_TOKEN or, if that is not "
                f"set, the token of {home}: {error}"
            ) from error
        if there.resolve() != home.resolve():
            raise Unavailable(
                f"no Clipper runs in {home}: the server at {place.management_url} is that of {there}; "
                f"start it with clipper start --home {home}"
            )
        stack.pop_all()
    return clipper


def _connect_url(url: str, find_token: TokenSource, tls: ClientTls, api_key: str | None) -> Clipper:
    """Connect to the server at ``url``, whose host both ports have: the server may use another name for itself."""
    api = HttpApi(url, find_token, tls)
    try:
        status = msgspec.json.decode(api.call("GET", "/status"), type=Status)
    finally:
        api.close()
    told, host = urlsplit(status.query_url), urlsplit(api.url).hostname or ""
    netloc = f"[{host}]:{told.port}" if ":" in host else f"{host}:{told.port}"
    return Clipper(api.url, told._replace(netloc=netloc).geturl(), find_token, tls, api_key)
