"""HTTP/1.1 for all callers of the query port: requests as bytes, and answers from bytes. No I/O."""

from urllib.parse import quote, urlsplit

import httptools
from msgspec import Struct

from clipper.errors import InvalidArgument

# A server's heads have some hundred bytes, a proxy's some thousand.
MAX_HEAD_BYTES = 64 * 1024
# The query port's longest answer has 224 MiB. A server that sends more than this never ends its answer.
MAX_ANSWER_BYTES = 256 * 1024 * 1024
# Heads that were parsed before are cached: a server's heads differ only in the body's length. A server that varies
# its heads fills the cache. A longer head is not cached.
MAX_KNOWN_HEADS = 4096
_MAX_KNOWN_BYTES = 1024
# To connect: a server on this machine accepts in microseconds, and counts as absent after this time.
CONNECT_TIMEOUT_S = 5.0
# While a certificate is renewed, the file in the home and the server change within moments of each other.
RENEWAL_S = 0.2


class Address(Struct, frozen=True):
    """The address of a server, and the path before all of its paths. ``url``, as it was given, is for messages."""

    url: str
    host: str
    port: int
    is_tls: bool
    path: str

    @staticmethod
    def parse(url: str) -> "Address":
        """Raise InvalidArgument if it is not ``http://HOST:PORT`` or ``https://HOST:PORT``, with a path or without."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError:
            host, port = "", None
        if not host or parts.scheme not in ("http", "https"):
            raise InvalidArgument(f"url is {url!r}: expected http://HOST:PORT")
        is_tls = parts.scheme == "https"
        path = quote(parts.path.rstrip("/"), safe="/%")
        return Address(url.rstrip("/"), host, port or (443 if is_tls else 80), is_tls, path)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Request(Struct, frozen=True):
    """A request, and how to wait for its answer.

    Attributes:
        path: the path after the address's own.
        body: pieces of the body, sent one after another.
        headers: headers besides Host and Content-Length, as lines that end with CR LF.
        timeout_s: the time in which the whole answer has to come, from the call on.
        may_repeat: whether the request may be sent again after an idle connection turned out to be closed. The server
            might have read it before, so its effect has to be the same if it comes twice.
    """

    method: str
    path: str
    body: tuple[bytes, ...] = ()
    headers: str = ""
    timeout_s: float = 0.0
    may_repeat: bool = True

    def encode(self, address: Address) -> bytes:
        return b"".join(self.buffers(address))

    def buffers(self, address: Address) -> tuple[bytes, ...]:
        """Return what ``encode`` joins."""
        head = (
            f"{self.method} {address.path}{self.path} HTTP/1.1\r\nhost: {address.authority}\r\n{self.headers}"
            f"content-length: {sum(map(len, self.body))}\r\n\r\n"
        )
        return head.encode("latin-1"), *self.body


class Answer(Struct, frozen=True, gc=False):
    """An answer. ``retry_after``: the value of that header, or empty. ``closes``: whether the connection is used up."""

    status: int
    body: bytes
    retry_after: str = ""
    closes: bool = False


class BadAnswer(Exception):
    """The bytes are not an answer, or are too many; the message says why."""


# By head: the length of the body, and an answer without it.
_known: dict[bytes, tuple[int, Answer]] = {}


class AnswerReader:
    """Reads the answer to a request. ``has_begun``: whether any byte has come."""

    def __init__(self) -> None:
        self.has_begun = False
        self._parser: _Parser | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer if it is complete with ``data``. Raises BadAnswer if it is not valid, or too large."""
        if self._parser is not None:
            return self._parser.feed(data)
        self.has_begun = True
        head = data[: data.find(b"\r\n\r\n") + 4]
        known = _known.get(head)
        if known is not None and len(data) == len(head) + known[0]:
            like = known[1]
            return Answer(like.status, data[len(head) :], like.retry_after, like.closes)
        self._parser = _Parser()
        answer = self._parser.feed(data)
        # Chunks would make the data longer than head and body.
        is_whole = answer is not None and len(data) == len(head) + len(answer.body)
        if answer is not None and is_whole and len(head) <= _MAX_KNOWN_BYTES and len(_known) < MAX_KNOWN_HEADS:
            _known[head] = len(answer.body), Answer(answer.status, b"", answer.retry_after, answer.closes)
        return answer


class _Parser:
    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._fed_bytes = 0
        self._retry_after = ""
        self._status, self._closes = 0, False
        self._is_in_body = self._is_complete = self._has_more = False

    def feed(self, data: bytes) -> Answer | None:
        self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # Nobody asked for bytes after a complete answer. They cost the connection, not the answer.
            if not self._is_complete:
                raise BadAnswer(f"the answer is not HTTP: {error}") from error
            self._has_more = True
        if self._is_complete:
            return Answer(self._status, bytes(self._body), self._retry_after, self._closes or self._has_more)
        # All received bytes count, which also bounds chunks of one byte and headers without end.
        most = MAX_ANSWER_BYTES if self._is_in_body else MAX_HEAD_BYTES
        if self._fed_bytes > most:
            raise BadAnswer(f"the answer is over {most} bytes")
        return None

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._has_more = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_complete and name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_in_body = self._parser.get_status_code() >= 200

    def on_body(self, data: bytes) -> None:
        if not self._is_complete:
            self._body += data

    def on_message_complete(self) -> None:
        # An interim answer, such as 100 Continue, comes before the answer itself.
        status = self._parser.get_status_code()
        if status >= 200 and not self._is_complete:
            self._status, self._closes, self._is_complete = status, not self._parser.should_keep_alive(), True
