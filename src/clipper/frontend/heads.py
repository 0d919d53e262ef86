"""Request heads: what is asked for, by whom, and how a head reads that offers another protocol."""

import httptools


def path_of(url: bytes) -> bytes:
    """The path without its query; a proxy's absolute form, ``http://host/path``, is as good as ``/path``."""
    if not url.startswith(b"/"):
        url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
    return url.partition(b"?")[0]


class Head:
    """What is taken from a request's head, as it comes.

    Attributes:
        size_bytes: of what has come.
        content_length: 0 if nobody says.
        expectation: in lower case.
        content_encoding: in lower case; empty if nobody says.
        inference_header_length: of a request of the Open Inference Protocol; None if nobody says.
        is_plain: whether an equal head can only mean the same again: nothing in it is about the connection, or is to
            be answered before the body.
    """

    __slots__ = (
        "_kept",
        "content_encoding",
        "content_length",
        "expectation",
        "inference_header_length",
        "is_plain",
        "size_bytes",
        "url",
    )

    def __init__(self) -> None:
        self.url = b""
        self.size_bytes = 0
        self.content_length = 0
        self.expectation = self.content_encoding = b""
        self.inference_header_length: bytes | None = None
        self.is_plain = True
        self._kept: list[tuple[bytes, bytes]] = []

    def add_url(self, url: bytes) -> None:
        self.url += url
        self.size_bytes += len(url)

    def add(self, name: bytes, value: bytes) -> None:
        self.size_bytes += len(name) + len(value)
        match name.lower():
            case b"content-length":
                # llhttp has checked that it is a number, and the only one.
                self.content_length = int(value)
                self._kept.append((name, value))
            case b"authorization":
                self._kept.append((name, value))
            case b"content-encoding":
                self.content_encoding = value.strip().lower()
                self._kept.append((name, value))
            case b"inference-header-content-length":
                # Of several none can be believed: together they are no number.
                before = self.inference_header_length
                self.inference_header_length = value.strip() if before is None else before + b"," + value
                self._kept.append((name, value))
            case b"expect":
                self.is_plain = False
                self.expectation = value.lower()
                self._kept.append((name, value))
            case b"transfer-encoding":
                self.is_plain = False
                self._kept.append((name, value))
            case b"connection":
                # What some clients send with every request changes nothing.
                self.is_plain = self.is_plain and value.lower() == b"keep-alive"

    def add_close(self) -> None:
        """It said, in a header that is not kept, that the connection ends with it."""
        self._kept.append((b"connection", b"close"))

    @property
    def authorizations(self) -> list[bytes]:
        return [value for name, value in self._kept if name.lower() == b"authorization"]

    def without_offer(self, parser: "httptools.HttpRequestParser") -> bytes:
        """This head without the offer of another protocol (Java's client offers h2c), for the request to be read again.

        A server may ignore the offer, but httptools takes all that follows for the other protocol, the body too.
        """
        line = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self.url, parser.get_http_version().encode())
        return line + b"".join(b"%b: %b\r\n" % header for header in self._kept) + b"\r\n"
