"""The one table from error codes to HTTP statuses on the query port."""

STATUSES = {
    "malformed_request": 400,
    "wrong_input": 400,
    "invalid_argument": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "expectation_failed": 417,
    "head_too_large": 431,
    "internal_error": 500,
    "not_implemented": 501,
    "model_error": 502,
    "policy_error": 502,
    "no_replica": 503,
    "overloaded": 503,
    "unavailable": 503,
    "timeout": 504,
}

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
