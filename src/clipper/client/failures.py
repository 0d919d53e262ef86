"""The errors of failed calls: the error that the server answered, or why it did not answer."""

import msgspec
from msgspec import Struct

from clipper.api.schemas import Failure
from clipper.errors import (
    KINDS,
    ClipperError,
    ContainerFailed,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from clipper.values.decoding import NOT_JSON

# OpenSSL's names for two failures, found in messages that other libraries pass on.
NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"
_ALERT = "ALERT"


class _InferFailure(Struct, frozen=True):
    """An error in the form of the Open Inference Protocol: ``error`` is the text."""

    error: str
    code: str


def answered_error(url: str, method: str, status: int, body: bytes, retry_after: str) -> ClipperError:
    """Return the error that an answer of ``url`` names, or quote it; ``retry_after`` is that header, or empty."""
    if method == "HEAD" and status in _BODILESS:
        kind, what = _BODILESS[status]
        return kind(f"{url} {what}")
    failure = _failure(body)
    if failure is None:
        shown = body[:200].decode(errors="replace")
        return Unavailable(f"{url} is not Clipper: it answered {status} {shown!r}")
    error = to_error(failure)
    if isinstance(error, TooManyRequests) and retry_after.isdecimal():
        error.retry_after_s = int(retry_after)
    return error


def _failure(body: bytes) -> Failure | None:
    try:
        return msgspec.json.decode(body, type=Failure)
    except NOT_JSON:
        pass
    try:
        infer_failure = msgspec.json.decode(body, type=_InferFailure)
    except NOT_JSON:
        return None
    return Failure(infer_failure.code, infer_failure.error)


# Messages for statuses of answers to HEAD, which have no body.
_BODILESS: dict[int, tuple[type[ClipperError], str]] = {
    401: (Unauthorized, "requires another token: the server does not know this one"),
    403: (Forbidden, "needs a token of the role admin, and this one is not"),
    404: (NotFound, "is not there"),
    503: (Unavailable, "cannot be answered now: see clipper status"),
}


def to_error(failure: Failure) -> ClipperError:
    kind = KINDS.get(failure.error, ClipperError)
    if issubclass(kind, ContainerFailed):
        return kind(failure.cause, list(failure.log_tail))
    return kind(failure.cause)


def cannot_connect(url: str, error: Exception) -> Unavailable:
    if NOT_TRUSTED in str(error):
        return Unavailable(
            f"the certificate of {url} is not trusted ({error}): name a file with the certificate that "
            "signed it in CLIPPER_CA"
        )
    return Unavailable(f"no Clipper answers at {url} ({error}): start it with clipper start")


def broke_off(url: str, method: str, path: str, error: Exception) -> Unavailable:
    """Return the error of a connection that ended before the answer did."""
    if _ALERT in str(error):
        return Unavailable(
            f"{url} refuses this client ({error}): if it requires a certificate, name the client's in "
            "CLIPPER_CLIENT_CERT and CLIPPER_CLIENT_KEY"
        )
    return Unavailable(f"{method} {path} at {url} broke off: {error or type(error).__name__}")


def too_late(url: str, method: str, path: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"{url} did not answer {method} {path} within {timeout_s:.3g} s")
