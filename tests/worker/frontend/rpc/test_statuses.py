"""The table of statuses beside REST's."""

import grpc

from clipper.worker.frontend.http import statuses
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.statuses import NUMBERS, STATUSES, Refused, status_of, trailers_of


def test_each_code_that_rest_answers_has_a_status_of_grpc() -> None:
    # Of HTTP alone.
    of_http = {"method_not_allowed", "expectation_failed", "head_too_large"}
    assert statuses.STATUSES.keys() - of_http == STATUSES.keys()
    numbers = {each.name: each.value[0] for each in grpc.StatusCode}
    assert NUMBERS.items() <= numbers.items()
    assert {status_of(code) for code in (*STATUSES, "not a code")} == NUMBERS.keys()


def test_trailers_are_bounded_headers_of_ascii() -> None:
    trailers = dict(trailers_of(Refused("too_many_requests", "ü\0\n%~\x7f" * 10_000, 3)))
    message = trailers.pop(b"grpc-message")
    assert message.startswith(b"%C3%BC%00%0A%25~%7F") and len(message) <= bounds.MAX_DETAILS_BYTES
    assert trailers == {
        b"grpc-status": b"8",
        b"clipper-error": b"too_many_requests",
        b"grpc-retry-pushback-ms": b"3000",
    }
    assert b"grpc-retry-pushback-ms" not in dict(trailers_of(Refused("model_error", "it failed")))
