"""The one table from error codes to statuses of gRPC, and how a call is refused."""

from clipper.errors import ClipperError, TooManyRequests
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.framing import percent_encoded

# Clients try again by themselves only after UNAVAILABLE: it is for cases in which another worker, or the same worker
# a moment later, may answer.
STATUSES = {
    "malformed_request": "INVALID_ARGUMENT",
    "wrong_input": "INVALID_ARGUMENT",
    "invalid_argument": "INVALID_ARGUMENT",
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "conflict": "ALREADY_EXISTS",
    "request_timeout": "DEADLINE_EXCEEDED",
    # gRPC itself answers this to messages over its bound.
    "too_large": "RESOURCE_EXHAUSTED",
    "too_many_requests": "RESOURCE_EXHAUSTED",
    "overloaded": "RESOURCE_EXHAUSTED",
    "unsupported_media_type": "UNIMPLEMENTED",
    "not_implemented": "UNIMPLEMENTED",
    # Code of users raised, and may do so again.
    "model_error": "UNKNOWN",
    "output_too_large": "UNKNOWN",
    "policy_error": "UNKNOWN",
    "no_replica": "UNAVAILABLE",
    "store_unavailable": "UNAVAILABLE",
    "unavailable": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "internal_error": "INTERNAL",
}
NUMBERS = {
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
# The statuses of a call that is answered, and of a call that its client has left.
OK, CANCELLED = "OK", "CANCELLED"
# The statuses for which the server is to blame, by OpenTelemetry's conventions for gRPC.
FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})
# Errors whose answer tells the client when to try again.
TO_TRY_AGAIN = frozenset({"too_many_requests", "overloaded", "no_replica", "unavailable", "store_unavailable"})


class Refused(Exception):
    """Ends a call without an answer, with a code of the error tree and what was expected."""

    def __init__(self, code: str, cause: str, retry_after_s: int = responses.RETRY_AFTER_S) -> None:
        super().__init__(cause)
        self.code = code
        self.retry_after_s = retry_after_s


def refusal(error: ClipperError) -> Refused:
    if isinstance(error, TooManyRequests):
        return Refused(error.code, str(error), error.retry_after_s)
    return Refused(error.code, str(error))


def status_of(code: str) -> str:
    return STATUSES.get(code, STATUSES["internal_error"])


def trailers_of(refused: Refused) -> list[tuple[bytes, bytes]]:
    message = percent_encoded(str(refused)[: bounds.MAX_DETAILS_BYTES])
    if len(message) > bounds.MAX_DETAILS_BYTES:
        message = percent_encoded(str(refused)[: bounds.MAX_DETAILS_BYTES // bounds.MAX_ENCODED_BYTES])
    trailers = [
        (b"grpc-status", b"%d" % NUMBERS[status_of(refused.code)]),
        (b"grpc-message", message),
        (b"clipper-error", refused.code.encode()),
    ]
    if refused.code in TO_TRY_AGAIN:
        trailers.append((b"grpc-retry-pushback-ms", b"%d" % (refused.retry_after_s * 1000)))
    return trailers
