"""Request heads: the headers that Clipper reads, and heads that offer another protocol."""

import re

import httptools
import msgspec

from clipper.worker.frontend import limits

# Headers that differ in each request, and do not change its meaning. A header that continues in the next line stays.
_VARYING = re.compile(rb"\r\n(x-request-id|traceparent|tracestate|baggage):([\t -~]*)(?=\r\n[^\t ])", re.IGNORECASE)
VARYING_NAMES = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"baggage"})

Headers = list[tuple[bytes, bytes]]


def without_varying(head: bytes) -> tuple[bytes, Headers]:
    """Return a head without the headers that differ in each request; and these, with their names as they were sent."""
    found: Headers = _VARYING.findall(head)
    return (_VARYING.sub(b"", head), found) if found else (head, found)


def ids_of(varying: Headers) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the values of ``x-request-id``, ``traceparent`` and ``tracestate``."""
    values: dict[bytes, list[bytes]] = {name: [] for name in VARYING_NAMES}
    for name, value in varying:
        values[name.lower()].append(value.strip(b"\t "))
    return values[b"x-request-id"], values[b"traceparent"], values[b"tracestate"]


def path_of(url: bytes) -> bytes:
    """Return the path without its query. A proxy's absolute form, ``http://host/path``, counts as ``/path``."""
    if not url.startswith(b"/"):
        url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
    return url.partition(b"?")[0]


def piece_end(data: bytes, start: int, body_left_bytes: int) -> int:
    """Return the end of the piece to parse next: at most two requests, so that others need not wait long.

    Args:
        data: the bytes that were read; the piece begins at ``start``.
        body_left_bytes: the missing bytes of a body whose length is known; 0 if there is none.
    """
    if body_left_bytes > 0:
        stop = start + body_left_bytes
    else:
        # A head ends with an empty line, and so does a body in chunks.
        stop = data.find(b"\r\n\r\n", start, start + limits.PARSED_BYTES) + 4
        if stop < 4:
            stop = start + limits.PARSED_BYTES
    return min(stop, len(data))


class Head(msgspec.Struct, eq=False):
    """The fields of a request's head that Clipper reads.

    Attributes:
        size_bytes: the size of the names and values so far.
        content_length: 0 if the head has none.
        expectation: in lower case.
        content_encoding: in lower case; empty if the head has none.
        is_csv: whether the head says that the body is CSV.
        inference_header_length: for the Open Inference Protocol; None if the head has none.
        origin: the origin of the web page that sends it; empty if the head has none.
        is_cross_site: whether a browser says that a page of another site sends it.
        requested_method, requested_headers: the method and headers that a browser asks to send; empty if it does not
            ask.
        is_plain: whether an equal head always means the same: it says nothing about the connection, and needs no
            answer before the body.
        varying: the headers that differ in each request.
    """

    url: bytes = b""
    size_bytes: int = 0
    content_length: int = 0
    expectation: bytes = b""
    content_encoding: bytes = b""
    is_csv: bool = False
    inference_header_length: bytes | None = None
    origin: bytes = b""
    is_cross_site: bool = False
    requested_method: bytes = b""
    requested_headers: bytes = b""
    is_plain: bool = True
    varying: Headers = []
    _kept: Headers = []

    def add_url(self, url: bytes) -> None:
        self.url += url
        self.size_bytes += len(url)

    def add(self, name: bytes, value: bytes) -> None:
        self.size_bytes += len(name) + len(value)
        match name.lower():
            case b"content-length":
                # llhttp has checked that it is a number, and that there is only one.
                self.content_length = int(value)
                self._kept.append((name, value))
            case b"authorization":
                self._kept.append((name, value))
            case b"content-encoding":
                self.content_encoding = value.strip().lower()
                self._kept.append((name, value))
            case b"content-type":
                self.is_csv = value.partition(b";")[0].strip().lower() == b"text/csv"
                self._kept.append((name, value))
            case b"inference-header-content-length":
                # If there are several values, none can be trusted. Joined by commas they are not a number, and are
                # refused.
                before = self.inference_header_length
                self.inference_header_length = value.strip() if before is None else before + b"," + value
                self._kept.append((name, value))
            case b"origin":
                self.origin = value.strip()
                self._kept.append((name, value))
            case b"sec-fetch-site":
                self.is_cross_site = value.strip() == b"cross-site"
                self._kept.append((name, value))
            case b"access-control-request-method":
                self.requested_method = value.strip()
            case b"access-control-request-headers":
                self.requested_headers = value.strip()
            case b"expect":
                self.is_plain = False
                self.expectation = value.lower()
                self._kept.append((name, value))
            case b"transfer-encoding":
                self.is_plain = False
                self._kept.append((name, value))
            case b"connection":
                # Some clients send keep-alive with every request; it changes nothing.
                self.is_plain = self.is_plain and value.lower() == b"keep-alive"
            case varying if varying in VARYING_NAMES:
                self.varying.append((name, value))
                self._kept.append((name, value))

    def add_close(self) -> None:
        """Note that the connection ends with this request, as a header announced that was dropped."""
        self._kept.append((b"connection", b"close"))

    @property
    def authorizations(self) -> list[bytes]:
        return [value for name, value in self._kept if name.lower() == b"authorization"]

    def without_offer(self, parser: "httptools.HttpRequestParser") -> bytes:
        """Return this head without its offer of another protocol, so that the request can be parsed again.

        Java's client offers h2c. A server may ignore an offer, but httptools treats everything after it, also the body,
        as the other protocol.
        """
        line = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self.url, parser.get_http_version().encode())
        return line + b"".join(b"%b: %b\r\n" % header for header in self._kept) + b"\r\n"
