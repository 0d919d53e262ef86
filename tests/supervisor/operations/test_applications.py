"""What an operator does with applications, on a real server."""

from typing import Any

import pytest
from live_server import APP, Server, with_application


def test_applications_change_while_they_are_served(server: Server) -> None:
    with_application(server)
    assert server.call("POST", "/applications", APP, status=409)["error"] == "conflict"
    server.call("PATCH", "/applications/app", {"slo_ms": 500, "default_output": None})
    application = server.call("GET", "/applications/app")
    assert application["slo_ms"] == 500 and application["default_output"] is None
    server.call("DELETE", "/applications/app/links/m")
    answer = server.predict("app", [1, 2])
    assert answer["default"] is True and answer["output"] is None
    other = {"name": "other", "slo_ms": 100, "links": [{"model": "m"}]}
    assert server.call("POST", "/applications", other)["input_type"] == "float64[2]"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({**APP, "name": "A b"}, "invalid_argument"),
        ({**APP, "name": "b", "slo_ms": 0}, "invalid_argument"),
        ({**APP, "name": "b", "policy": "none-such"}, "invalid_argument"),
        ({**APP, "name": "b", "input_type": "string"}, "invalid_argument"),
        ({**APP, "name": "b", "links": [{"model": "none"}]}, "not_found"),
        ({**APP, "name": "b", "links": [{"model": "m", "version": "9"}]}, "not_found"),
        ({"name": "b", "slo_ms": 9}, "invalid_argument"),
    ],
)
def test_applications_that_cannot_be(shared: Server, body: dict[str, Any], code: str) -> None:
    status = 404 if code == "not_found" else 400
    assert shared.call("POST", "/applications", body, status=status)["error"] == code
