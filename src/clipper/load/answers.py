"""Reads answers from the bytes of a connection, and a query's outcome from its answer."""

import re

import msgspec
from msgspec import Struct

# Heads that were seen before are not parsed again: a server's heads differ only in the body's length. A server that
# varies its heads fills this up.
_MAX_KNOWN_HEADS = 4096
# More than any server's head.
MAX_HEAD_BYTES = 64 * 1024
# A prediction of a million numbers; a larger body means a server that never ends it.
MAX_BODY_BYTES = 64 * 1024 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class BadAnswer(Exception):
    """The bytes are not HTTP/1.1 as this client reads it; the message says why."""


class Answer(Struct, frozen=True, gc=False):
    """An answer. ``closes``: whether the server closes the connection after it."""

    status: int
    body: bytes
    closes: bool


class AnswerReader:
    """Reads the answers on one connection, with one request in flight."""

    _known: dict[bytes, tuple[int, int, bool]] = {}  # noqa: RUF012  # by head: all connections learn from each other

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        # Size of the whole answer, once its head has come.
        self._wanted = 0

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer if it is complete with ``data``.

        Raises:
            BadAnswer: it is not valid, or too large.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return None
            data = b"".join(self._pieces)
            self._pieces = []
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > MAX_HEAD_BYTES:
                raise BadAnswer(f"the head is over {MAX_HEAD_BYTES} bytes")
            self._wait(data, wanted=0)
            return None
        head = data[:end]
        status, length, closes = self._known.get(head) or self._parse(head)
        if len(data) < end + length:
            self._wait(data, wanted=end + length)
            return None
        if len(data) > end + length:
            raise BadAnswer("there are bytes after the answer")
        return Answer(status, data[end:], closes)

    def _wait(self, data: bytes, wanted: int) -> None:
        self._pieces, self._size, self._wanted = [data], len(data), wanted

    def _parse(self, head: bytes) -> tuple[int, int, bool]:
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None:
            raise BadAnswer(f"not HTTP: {head[:40]!r}")
        if length is None:
            raise BadAnswer("no content-length")
        if int(length[1]) > MAX_BODY_BYTES:
            raise BadAnswer(f"the body is over {MAX_BODY_BYTES} bytes")
        parsed = int(status[1]), int(length[1]), _CLOSE.search(head) is not None or head[5:8] == b"1.0"
        if len(self._known) < _MAX_KNOWN_HEADS:
            self._known[head] = parsed
        return parsed


class _Body(Struct, gc=False):
    """The fields of an answer that show the query's outcome; the output itself is skipped."""

    default: bool = False
    default_reason: str = ""
    error: str = ""


# Bound of a reason or code, longer than Clipper's. It goes to terminals, so only characters of codes are kept.
_MAX_CODE_LENGTH = 40
_NO_CODE = re.compile(r"[^\w .:-]", re.ASCII)

_decode = msgspec.json.Decoder(_Body).decode


class Outcome(Struct, frozen=True, gc=False):
    """The outcome of a query; empty if a model answered it.

    Attributes:
        default: why it was answered with the default.
        error: why it was not answered: the status and its code, or what happened to the connection.
    """

    default: str = ""
    error: str = ""


BY_MODEL = Outcome()


def outcome_of(status: int, body: bytes) -> Outcome:
    try:
        told = _decode(body)
    except (msgspec.DecodeError, UnicodeError):
        # Not from Clipper, but for example a proxy's page.
        return Outcome(error=f"{status} not a prediction")
    if status != 200 or told.error:
        return Outcome(error=f"{status} {_code(told.error)}".strip())
    return Outcome(default=_code(told.default_reason) or "no reason") if told.default else BY_MODEL


def _code(text: str) -> str:
    return _NO_CODE.sub("?", text[:_MAX_CODE_LENGTH])
