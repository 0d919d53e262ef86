"""The table of statuses beside REST's."""

import grpc

from clipper.frontend import statuses
from clipper.frontend.rpc.statuses import STATUSES, status_of


def test_each_code_that_rest_answers_has_a_status_of_grpc() -> None:
    # Of HTTP alone.
    of_http = {"method_not_allowed", "expectation_failed", "head_too_large"}
    assert statuses.STATUSES.keys() - of_http == STATUSES.keys()
    assert {status_of(code) for code in (*STATUSES, "not a code")} <= {each.name for each in grpc.StatusCode}
