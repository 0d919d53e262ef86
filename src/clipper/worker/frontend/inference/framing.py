"""What a request's head says of its body: how long its JSON is, and whether it is compressed."""

from clipper.errors import ClipperError, MalformedRequest
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.inference.inflate import check_encoding


class Framing:
    """
    Attributes:
        encoding: how the body is compressed; empty if it is not.
        problem: what is wrong with the head; None if nothing is.
        json_bytes: length of the JSON, which tensors follow; None if the whole body is JSON.
    """

    def __init__(self, head: Head) -> None:
        self.encoding = b"" if head.content_encoding in (b"", b"identity") else head.content_encoding
        self.problem: ClipperError | None = None
        self.json_bytes: int | None = None
        try:
            if self.encoding:
                check_encoding(self.encoding)
            self.json_bytes = _json_bytes(head.inference_header_length)
        except ClipperError as error:
            error.__traceback__ = None  # the error is kept, and would keep the frames
            self.problem = error

    def json_bytes_of(self, body: bytes | bytearray) -> int:
        """Return the length of a body's JSON. Raises MalformedRequest if it is longer than the body."""
        if self.json_bytes is None:
            return len(body)
        if self.json_bytes > len(body):
            raise MalformedRequest(
                f"Inference-Header-Content-Length is {self.json_bytes}: expected at most {len(body)}, the body's size"
            )
        return self.json_bytes


def _json_bytes(header: bytes | None) -> int | None:
    if header is None:
        return None
    if not header.isdigit() or len(header) > 18:
        shown = header[:40].decode("latin-1")
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {shown!r}: expected the number of bytes of the JSON"
        )
    return int(header)
