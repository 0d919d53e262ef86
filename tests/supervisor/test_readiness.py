"""Which servers a balancer sends queries to, while a model of one application cannot run."""

import os
import signal
from pathlib import Path

from tests.supervisor.live_server import APP, Server, with_application
from tests.supervisor.test_stop import get, health
from tests.waiting import until


def break_one(server: Server, tmp_path: Path) -> None:
    """Beside the application app, have another one whose model ends each time it starts."""
    flag = tmp_path / "broken"
    code = (
        f"import os\nif os.path.exists({str(flag)!r}): os._exit(7)\ndef predict(inputs): return [1 for _ in inputs]\n"
    )
    assert server.deploy("fragile", code, input_type="float64[2]")["state"] == "ready"
    server.call("POST", "/applications", APP | {"name": "other", "links": [{"model": "fragile"}]})
    until(lambda: server.predict("other", [1, 2]).get("output") == 1)
    assert get(server, "/health/ready?application=other").status_code == 200
    flag.write_text("")
    (pid,) = server.ready_pids("fragile")
    os.kill(pid, signal.SIGKILL)
    until(lambda: get(server, "/health/ready?application=other").status_code == 503)
    until(lambda: server.call("GET", "/status")["applications_ready"] == 1)


def test_one_application_without_a_model_takes_no_others_from_their_users(server: Server, tmp_path: Path) -> None:
    with_application(server.with_options("--grpc-port", "0"))
    break_one(server, tmp_path)
    for path in ("/health/ready", "/v2/health/ready", "/health/ready?application=app"):
        assert get(server, path).status_code == 200, path
    assert server.ask("GET", "/health/ready").status_code == 200
    assert health(server, "inference.GRPCInferenceService") == health(server, "app") == "SERVING"
    assert health(server, "other") == "NOT_SERVING"
    refused = get(server, "/health/ready?application=app&application=other")
    assert refused.status_code == 503 and refused.json()["cause"].endswith("without a model that has a replica: other")
    status = server.call("GET", "/status")
    assert status["ready"] and (status["applications"], status["applications_ready"]) == (2, 1)
    assert any("application 'other': fragile:1 has no replica that is ready" in text for text in status["problems"])
    assert "clipper_ready 1.0" in server.metrics and "clipper_applications_ready 1.0" in server.metrics

    unknown = get(server, "/health/ready?application=nobody")
    assert unknown.status_code == 404 and "'nobody'" in unknown.json()["cause"]
    assert get(server, "/health/ready?application=").status_code == 400

    # The one that is left goes, too: the server can answer nobody.
    server.call("DELETE", "/applications/app")
    until(lambda: get(server, "/health/ready").status_code == 503)
    assert not server.call("GET", "/status")["ready"]


def test_a_server_may_have_to_answer_all_applications(server: Server, tmp_path: Path) -> None:
    with_application(server.with_options("--ready-when", "all"))
    break_one(server, tmp_path)
    until(lambda: get(server, "/health/ready").status_code == 503)
    assert server.ask("GET", "/health/ready").status_code == 503
    assert not server.call("GET", "/status")["ready"]
    assert get(server, "/health/ready?application=app").status_code == 200
