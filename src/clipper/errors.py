"""Every error that Clipper raises on purpose, grouped by who has to act.

    ClipperError
    ├── RequestError          the caller: the request has to change
    │   ├── MalformedRequest      malformed_request     not HTTP, not JSON, or not of the expected form
    │   ├── WrongInput            wrong_input           an input that is not of the declared type or shape
    │   ├── InvalidArgument       invalid_argument      a value outside its range
    │   ├── Unauthorized          unauthorized          no token or key, or one that the server does not know
    │   ├── Forbidden             forbidden             the token's role, the key, the Host or the Origin may not
    │   ├── NotFound              not_found             no such application, model, version, replica or path
    │   ├── MethodNotAllowed      method_not_allowed
    │   ├── TooLarge              too_large             over a size limit
    │   ├── UnsupportedMediaType  unsupported_media_type  a body of another content type than the call takes
    │   ├── RequestTimeout        request_timeout       the request did not arrive in time
    │   └── Conflict              conflict              the name is taken, or the thing is in use
    ├── ModelFault            the user: the model, or other code of the user's, has to change
    │   ├── ModelFailed           model_error           predict_batch raised or broke its contract
    │   │   └── OutputTooLarge        output_too_large      an output is over the server's bound
    │   ├── ContainerFailed       container_failed      a container cannot start; carries its last log lines
    │   └── PolicyFailed          policy_error          an application's own policy or loss raised or broke its contract
    └── ServiceError          Clipper or its machine: the same request may work later
        ├── DeadlineExceeded      timeout
        ├── NoReplica             no_replica
        ├── Overloaded            overloaded
        ├── TooManyRequests       too_many_requests     over a limit of the key or the application
        ├── Unavailable           unavailable           starting, draining, or the server is not running
        ├── RegistryUnavailable   registry_unavailable  the registry cannot be written (disk full, locked)
        │   └── NotLeader             not_leader            another supervisor of the cluster leads: ask that one
        ├── StoreUnavailable      store_unavailable     learned state cannot be read or written now
        ├── ProtocolViolation     protocol_violation    a container broke the container protocol
        └── NotImplementedYet     not_implemented

Codes are stable: they are in answers, metrics and logs. This module knows no HTTP: see ``base/http_statuses.py``.
Standard library only.
"""

from collections.abc import Iterator


class ClipperError(Exception):
    """The root. ``code`` is stable; the message says what was expected, what came and what to do."""

    code = "internal_error"


class RequestError(ClipperError):
    """The caller has to change the request."""


class MalformedRequest(RequestError):
    code = "malformed_request"


class WrongInput(RequestError):
    code = "wrong_input"


class InvalidArgument(RequestError):
    code = "invalid_argument"


class Unauthorized(RequestError):
    code = "unauthorized"


class Forbidden(RequestError):
    code = "forbidden"


class NotFound(RequestError):
    code = "not_found"


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"


class TooLarge(RequestError):
    code = "too_large"


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"


class RequestTimeout(RequestError):
    code = "request_timeout"


class Conflict(RequestError):
    code = "conflict"


class ModelFault(ClipperError):
    """The model or its environment has to change."""


class ModelFailed(ModelFault):
    code = "model_error"


class OutputTooLarge(ModelFailed):
    code = "output_too_large"


class ContainerFailed(ModelFault):
    """A container could not start. ``log_tail`` holds its own last lines, oldest first."""

    code = "container_failed"

    def __init__(self, message: str, log_tail: list[str] | None = None) -> None:
        super().__init__(message)
        self.log_tail = log_tail or []


class PolicyFailed(ModelFault):
    code = "policy_error"


class ServiceError(ClipperError):
    """The same request may work later."""


class DeadlineExceeded(ServiceError):
    code = "timeout"


class NoReplica(ServiceError):
    code = "no_replica"


class Overloaded(ServiceError):
    code = "overloaded"


class TooManyRequests(ServiceError):
    """``retry_after_s``: after this time the request may be let in, if nobody else asks."""

    code = "too_many_requests"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(ServiceError):
    code = "unavailable"


class RegistryUnavailable(ServiceError):
    code = "registry_unavailable"


class NotLeader(RegistryUnavailable):
    code = "not_leader"


class StoreUnavailable(ServiceError):
    code = "store_unavailable"


class ProtocolViolation(ServiceError):
    code = "protocol_violation"


class NotImplementedYet(ServiceError):
    code = "not_implemented"


def _kinds(root: type[ClipperError]) -> Iterator[type[ClipperError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


# The errors by code; of two with one code, the more special.
KINDS = {kind.code: kind for kind in _kinds(ClipperError)}
