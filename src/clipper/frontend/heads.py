"""Request heads: what is asked for, and how a head reads that offers another protocol."""

from collections.abc import Iterable

import httptools


def path_of(url: bytes) -> bytes:
    """The path without its query; a proxy's absolute form, ``http://host/path``, is as good as ``/path``."""
    if not url.startswith(b"/"):
        url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
    return url.partition(b"?")[0]


def head_without_offer(
    parser: "httptools.HttpRequestParser", url: bytes, framing: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The head of a request that offers another protocol (Java's client offers h2c), to be read again without that.

    A server may ignore the offer, but httptools takes all that follows for the other protocol, the body too.
    """
    line = b"%b %b HTTP/%b\r\n" % (parser.get_method(), url, parser.get_http_version().encode())
    return line + b"".join(b"%b: %b\r\n" % header for header in framing) + b"\r\n"
