"""The table from error codes to HTTP statuses of the query port."""

from http import HTTPStatus

from clipper.base.http_statuses import HTTP_STATUSES

STATUSES = HTTP_STATUSES | {"expectation_failed": 417, "head_too_large": 431}

# Python names 413 by an older RFC before its version 3.13.
REASONS = {status: HTTPStatus(status).phrase for status in {200, *STATUSES.values()}} | {413: "Content Too Large"}
