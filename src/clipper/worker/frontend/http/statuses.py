"""The table from error codes to HTTP statuses of the query port."""

from http import HTTPStatus

STATUSES = {
    "malformed_request": 400,
    "wrong_input": 400,
    "invalid_argument": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "too_many_requests": 429,
    "head_too_large": 431,
    "internal_error": 500,
    "not_implemented": 501,
    "model_error": 502,
    "output_too_large": 502,
    "policy_error": 502,
    "no_replica": 503,
    "overloaded": 503,
    "store_unavailable": 503,
    "unavailable": 503,
    "timeout": 504,
}

# Python names 413 by an older RFC before its version 3.13.
REASONS = {status: HTTPStatus(status).phrase for status in {200, *STATUSES.values()}} | {413: "Content Too Large"}
