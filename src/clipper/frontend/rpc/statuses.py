"""The one table from error codes to statuses of gRPC."""

# Of those, clients by themselves try again after UNAVAILABLE alone: where another worker or a moment later may answer.
STATUSES = {
    "malformed_request": "INVALID_ARGUMENT",
    "wrong_input": "INVALID_ARGUMENT",
    "invalid_argument": "INVALID_ARGUMENT",
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "conflict": "ALREADY_EXISTS",
    "request_timeout": "DEADLINE_EXCEEDED",
    # As gRPC itself answers messages over its bound.
    "too_large": "RESOURCE_EXHAUSTED",
    "too_many_requests": "RESOURCE_EXHAUSTED",
    "overloaded": "RESOURCE_EXHAUSTED",
    "unsupported_media_type": "UNIMPLEMENTED",
    "not_implemented": "UNIMPLEMENTED",
    # What code of others raised, which may do so again.
    "model_error": "UNKNOWN",
    "policy_error": "UNKNOWN",
    "no_replica": "UNAVAILABLE",
    "store_unavailable": "UNAVAILABLE",
    "unavailable": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "internal_error": "INTERNAL",
}


def status_of(code: str) -> str:
    """What ``grpc.StatusCode`` calls it."""
    return STATUSES.get(code, STATUSES["internal_error"])
