"""An HTTP API of the server, as calls that return a body or raise the server's own error."""

import os
import ssl
import time
from collections.abc import Callable, Iterator

import httpx
import msgspec

from clipper.api.schemas import Status
from clipper.base.http1 import CONNECT_TIMEOUT_S, RENEWAL_S, Address
from clipper.base.tls.trust import ClientTls, Trust
from clipper.client.failures import NOT_TRUSTED, answered_error, broke_off, cannot_connect, too_late
from clipper.errors import InvalidArgument, NotFound, NotLeader, Unauthorized, Unavailable

_DEFAULT_TIMEOUT_S = 30.0


class HttpApi:
    """An HTTP API at ``url``: ``http://HOST:PORT`` or ``https://HOST:PORT``, with a path or without.

    ``find_token`` finds the token of the management API, or the key of the query port. ``tls`` says which certificates
    to trust over https, by default the system's. Raises InvalidArgument if ``url`` is not such an address, or a file
    that ``tls`` needs cannot be used.
    """

    def __init__(
        self,
        url: str,
        find_token: Callable[[], str | None] = lambda: None,
        tls: ClientTls | None = None,
        *,
        is_management: bool = True,
    ) -> None:
        self.url = Address.parse(url).url
        self._find_token = find_token
        self._is_management = is_management
        self._tls = tls or ClientTls(Trust())
        # Without TLS, use an empty context, which costs nothing: httpx's own would load all of the system's
        # certificates.
        is_tls = self.url.startswith("https:")
        context = self._tls.context if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context = context
        self._client, self._pid = self._make_client(), os.getpid()

    def _make_client(self) -> httpx.Client:
        # Connect to the server directly: the environment's proxies are for other hosts.
        return httpx.Client(base_url=self.url, trust_env=False, verify=self._context)

    def close(self) -> None:
        self._client.close()

    def has(self, path: str) -> bool:
        """Whether HEAD finds the path of the management API."""
        try:
            self.call("HEAD", path)
        except NotFound:
            return False
        except Unavailable as error:
            # An answer to HEAD has no body to say why; for a standby, the server's status says it.
            status = msgspec.json.decode(self.call("GET", "/status"), type=Status)
            if status.lease is not None and status.lease.role == "standby":
                raise NotLeader(f"{self.url}: {status.problems[0]}") from error
            raise
        return True

    def call(
        self,
        method: str,
        path: str,
        content: bytes | Iterator[bytes] | None = None,
        timeout_s: float = _DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """Return the answer's body.

        Args:
            content: JSON, or a stream of a tar's bytes.
            timeout_s: how long the server may take for each step of the answer.

        Raises:
            ClipperError: the error whose code the server answered.
            Unavailable: the server cannot be reached, or the connection broke.
            DeadlineExceeded: the answer took too long.
        """
        token = self._find_token()
        response = self._request(method, path, content, timeout_s, token)
        # The token may have been replaced since it was read, so a refused call is repeated once. A stream cannot be
        # resent.
        if response.status_code == httpx.codes.UNAUTHORIZED and (content is None or isinstance(content, bytes)):
            before, token = token, self._find_token()
            if token != before:
                response = self._request(method, path, content, timeout_s, token)
        if response.status_code == httpx.codes.UNAUTHORIZED and token is None and self._is_management:
            raise Unauthorized(
                f"{self.url} requires a token, and none was found: set CLIPPER_TOKEN, or run this on the server's "
                "machine as its user"
            )
        if not response.is_success:
            url, retry_after = str(response.url), response.headers.get("retry-after", "")
            raise answered_error(url, method, response.status_code, response.content, retry_after)
        return response.content

    def _request(
        self, method: str, path: str, content: bytes | Iterator[bytes] | None, timeout_s: float, token: str | None
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        kind = "application/json" if isinstance(content, bytes) else "application/x-tar"
        headers = {} if content is None else {"content-type": kind}
        if token is not None:
            headers["authorization"] = f"Bearer {checked_token(token)}"
        if self._pid != os.getpid():
            # After a fork, both processes would read answers from the same connections.
            self._client, self._pid = self._make_client(), os.getpid()
        try:
            for is_last in (False, True):
                try:
                    return self._client.request(method, path, content=content, headers=headers, timeout=timeout)
                except httpx.ConnectError as error:
                    if is_last or NOT_TRUSTED not in str(error):
                        raise
                # None of the content was sent yet, so the call can be repeated.
                time.sleep(RENEWAL_S)
                self._tls.renew()
            raise AssertionError("the last try returns or raises")
        except httpx.ConnectError as error:
            raise cannot_connect(self.url, error) from error
        except httpx.TimeoutException as error:
            raise too_late(self.url, method, path, timeout_s) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise broke_off(self.url, method, path, error) from error


def checked_token(token: str) -> str:
    """Return the token if a header may hold it. The message never quotes the token, since logs may keep messages."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument("the token or key is not valid: expected 32 to 512 letters, digits or ._~+/=-")
    return token
