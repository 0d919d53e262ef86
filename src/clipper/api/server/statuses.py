"""The table from error codes to HTTP statuses of the management API, and the body of every error."""

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send

from clipper.api.schemas import Failure
from clipper.base.http_statuses import HTTP_STATUSES
from clipper.errors import ClipperError, ContainerFailed

_log = logging.getLogger(__name__)

# Status, headers and body.
BareAnswer = tuple[int, list[tuple[bytes, bytes]], bytes]

STATUSES = HTTP_STATUSES | {
    "container_failed": 502,
    "protocol_violation": 502,
    "registry_unavailable": 503,
    "not_leader": 503,
}

# Error codes for the framework's own refusals, by status. Any other 4xx is malformed_request.
_FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}

# A start of the server, or a swap of workers, takes about this long.
_RETRY_AFTER_S = "1"


def clipper_error(_request: Request[Any, Any, Any], error: ClipperError) -> Response[Failure]:
    tail = tuple(error.log_tail) if isinstance(error, ContainerFailed) else ()
    return _response(Failure(error.code, str(error), tail))


def bare_answer(error: ClipperError) -> BareAnswer:
    """Return the answer to a request that the framework has not seen."""
    body = msgspec.json.encode(Failure(error.code, str(error)))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    status = STATUSES[error.code]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Bearer realm="clipper"'))
    return status, headers, body


async def send_answer(send: Send, method: str, answer: BareAnswer) -> None:
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    sent = b"" if method == "HEAD" else body
    await send({"type": "http.response.body", "body": sent, "more_body": False})


def http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Failure]:
    """Answer a refusal of the framework: an unknown path or method, a body that does not fit its schema."""
    if error.status_code >= 500:
        return unexpected_error(request, error)
    code = _FRAMEWORK_CODES.get(error.status_code, "malformed_request")
    return _response(Failure(code, _cause(request, error, code)), error.headers)


def bad_body(_request: Request[Any, Any, Any], error: RecursionError | UnicodeDecodeError) -> Response[Failure]:
    """Answer an error that only decoding a body raises, since the client chooses the body's texts and depth."""
    if isinstance(error, UnicodeDecodeError):
        return _response(Failure("malformed_request", f"the body is not JSON: it is not UTF-8: {error.reason}"))
    return _response(Failure("malformed_request", "the body is nested too deeply: expected a flat JSON object"))


def unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[Failure]:
    """Answer a bug: it is logged with its traceback, and answered without."""
    _log.error("%(method)s %(path)s failed", {"method": request.method, "path": request.url.path}, exc_info=error)
    cause = f"the server failed on {request.method} {request.url.path}: {type(error).__name__}; see its log"
    return _response(Failure("internal_error", cause))


def _response(failure: Failure, headers: dict[str, str] | None = None) -> Response[Failure]:
    status = STATUSES.get(failure.error, 500)
    extra = {"Retry-After": _RETRY_AFTER_S} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(failure, status_code=status, media_type="application/json", headers={**(headers or {}), **extra})


def _cause(request: Request[Any, Any, Any], error: HTTPException, code: str) -> str:
    if code == "not_found":
        return f"no path {request.url.path}: the API's paths are listed under /schema/openapi.json"
    if code == "method_not_allowed":
        allowed = (error.headers or {}).get("allow", "another method")
        return f"{request.method} is not allowed on {request.url.path}: expected {allowed}"
    if isinstance(error, ValidationException) and error.extra:
        return "; ".join(_field(item) for item in error.extra)
    return str(error.__cause__ or error.detail)


def _field(item: Any) -> str:
    """Write a finding of the framework as ``field: expected, got``."""
    if not isinstance(item, dict):
        return str(item)
    message = str(item.get("message", item)).replace("`", "")
    return f"{item['key']}: {message}" if item.get("key") else message
