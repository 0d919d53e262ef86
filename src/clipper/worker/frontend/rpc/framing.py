"""The framing of gRPC in HTTP/2: the head of a call, its length-prefixed messages, and the trailers that end it."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from clipper.errors import MalformedRequest, NotImplementedYet, Overloaded, TooLarge
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import NO_ROOM, Budget
from clipper.worker.frontend.http.heads import VARYING_NAMES, Headers

# The prefix is a flag that says whether the message is compressed, and the message's length.
PREFIX_BYTES = 5
ENCODINGS = (b"identity", b"gzip", b"deflate")
ANSWER_HEAD: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b",".join(ENCODINGS)),
]
OK_TRAILERS: Headers = [(b"grpc-status", b"0")]
# A time-out has at most 8 digits and a unit.
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NOT_PLAIN = re.compile(rb"[^ -$&-~]")
_HTTP_TEXT = b"this port speaks gRPC only"


class Message(msgspec.Struct, gc=False):
    """A message; if it is compressed, by the encoding of the call's head. A million must not delay the collector."""

    data: bytes
    is_compressed: bool


class NotGrpc(Exception):
    """The request of HTTP/2 is no call. ``head`` is the head of its answer."""

    def __init__(self, status: bytes) -> None:
        super().__init__(status.decode())
        self.head = [(b":status", status), (b"content-type", b"text/plain"), (b"grpc-message", _HTTP_TEXT)]


class CallHead(NamedTuple):
    """A call's head.

    Attributes:
        path: ``/package.Service/Method``.
        authorizations: the values of all its ``authorization`` headers.
        timeout_s: how long the client waits for an answer; None if it does not say.
        encoding: the encoding of its compressed messages; ``identity`` if none is compressed.
        varying: the headers that name the request, or its trace.
    """

    path: str
    authorizations: Sequence[bytes]
    timeout_s: float | None
    encoding: bytes
    varying: Headers


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> CallHead:
    """Read a request's headers, which are valid HTTP/2.

    Raises NotGrpc if the request is not a call, MalformedRequest if grpc-timeout is not a time, TooLarge if the head is
    over ``MAX_HEAD_BYTES``, and NotImplementedYet if the encoding is not known.
    """
    method = path = content_type = b""
    timeout: bytes | None = None
    encoding = b"identity"
    authorizations: tuple[bytes, ...] = ()
    varying: Headers = []
    size_bytes = 0
    for name, value in headers:
        size_bytes += len(name) + len(value)
        if name == b":path":
            path = value
        elif name == b"content-type":
            content_type = value
        elif name == b"grpc-timeout":
            timeout = value
        elif name == b":method":
            method = value
        elif name == b"authorization":
            authorizations += (value,)
        elif name == b"grpc-encoding":
            encoding = value
        elif name in VARYING_NAMES:
            varying.append((name, value))
    if method != b"POST":
        raise NotGrpc(b"405")
    # Other types continue with + and the name of a message format, or with parameters.
    if content_type != b"application/grpc" and not content_type.startswith(
        (b"application/grpc+proto", b"application/grpc;")
    ):
        raise NotGrpc(b"415")
    if size_bytes > limits.MAX_HEAD_BYTES:
        raise TooLarge(f"the call's metadata is over {limits.MAX_HEAD_BYTES} bytes")
    if encoding not in ENCODINGS:
        shown = encoding[:40].decode("latin-1")
        raise NotImplementedYet(f"grpc-encoding {shown!r} is not known: expected gzip, deflate or identity")
    timeout_s = None if timeout is None else seconds_of(timeout)
    return CallHead(path.decode("latin-1"), authorizations, timeout_s, encoding, varying)


def seconds_of(timeout: bytes) -> float:
    """Return the seconds of a ``grpc-timeout``: 0.1 for ``100m``. Raises MalformedRequest if it is not a time."""
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        shown = timeout[:40].decode("latin-1")
        raise MalformedRequest(f"grpc-timeout is {shown!r}: expected up to 8 digits and one of H, M, S, m, u, n")
    return int(found[1]) * _UNITS_S[found[2]]


def prefix_of(size_bytes: int) -> bytes:
    return b"\0" + size_bytes.to_bytes(4, "big")


def percent_encoded(text: str) -> bytes:
    """Return the text for the header ``grpc-message``."""
    return _NOT_PLAIN.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "replace"))


class MessageReader:
    """Cuts the messages out of a stream's data. An incomplete message counts against the budget until ``drop``.

    ``held_bytes`` is the size of its part that has come.
    """

    __slots__ = ("_budget", "_data", "_wanted_bytes", "held_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._data = bytearray()
        self.held_bytes = 0
        # The bytes that must be there before there is something to do: a prefix, or a prefix and its message.
        self._wanted_bytes = PREFIX_BYTES

    @property
    def is_within_message(self) -> bool:
        return bool(self._data)

    def add(self, data: bytes, max_bytes: int) -> Sequence[Message]:
        """Add data; return the messages that are complete with it.

        Raises MalformedRequest if the data has no valid prefix where one is due, TooLarge if a message is over
        ``max_bytes``, and Overloaded if the budget has no room for an incomplete message.
        """
        if not self._data and len(data) >= PREFIX_BYTES:
            # The common case: the data is one message.
            is_compressed, size_bytes = _read_prefix(data, 0, max_bytes)
            if len(data) == PREFIX_BYTES + size_bytes:
                return (Message(data[PREFIX_BYTES:], is_compressed),)
        own = self._data
        own += data
        messages = []
        start = 0
        while len(own) - start >= self._wanted_bytes:
            is_compressed, size_bytes = _read_prefix(own, start, max_bytes)
            end = start + PREFIX_BYTES + size_bytes
            if len(own) < end:
                self._wanted_bytes = PREFIX_BYTES + size_bytes
                break
            with memoryview(own) as view:
                messages.append(Message(bytes(view[start + PREFIX_BYTES : end]), is_compressed))
            self._wanted_bytes = PREFIX_BYTES
            start = end
        if start:
            del own[:start]
        self._budget.held_bytes += len(own) - self.held_bytes
        self.held_bytes = len(own)
        if len(own) > PREFIX_BYTES and not self._budget.has_room(0):
            raise Overloaded(NO_ROOM)
        return messages

    def drop(self) -> None:
        """Discard an incomplete message and release its share of the budget."""
        self._budget.held_bytes -= self.held_bytes
        self.held_bytes = 0
        self._data = bytearray()


def _read_prefix(data: bytes | bytearray, start: int, max_bytes: int) -> tuple[bool, int]:
    flag = data[start]
    if flag > 1:
        raise MalformedRequest(f"a message begins with the byte {flag}: expected 0, or 1 if it is compressed")
    size_bytes = int.from_bytes(data[start + 1 : start + PREFIX_BYTES], "big")
    if size_bytes > max_bytes:
        raise TooLarge(limits.over_bound(f"message of {size_bytes} bytes", max_bytes))
    return flag == 1, size_bytes
