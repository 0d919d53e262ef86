"""A stranger, or a web page in an operator's browser, can do nothing to the management port of a real server."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from clipper.client import Clipper
from tests.supervisor.live_server import APP, NO_TLS, Server, with_application
from tests.waiting import TIMEOUT_S


def ask(
    server: Server, method: str, path: str, headers: dict[str, str], content: bytes | None = None
) -> tuple[int, str]:
    """Status and error code of an answer to exactly these headers."""
    url = server.place.management_url + path
    answer = httpx.request(method, url, headers=headers, content=content, timeout=TIMEOUT_S, verify=NO_TLS)
    return answer.status_code, answer.json().get("error", "")


def shell_policy(touched: Path) -> bytes:
    parameters: dict[str, Any] = {"args": f"touch {touched}", "shell": True}
    return json.dumps({**APP, "name": "x", "policy": {"name": "subprocess:Popen", "parameters": parameters}}).encode()


def test_a_web_page_cannot_run_a_command(shared: Server, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    body, page = shell_policy(touched), {"Origin": "http://evil.example", "Host": "evil.example"}
    plain, token = {"Content-Type": "text/plain"}, {"Authorization": f"Bearer {shared.token}"}
    assert ask(shared, "POST", "/applications", page | plain, body) == (403, "forbidden")
    # Each door by itself, the others open.
    assert ask(shared, "POST", "/applications", plain | token, body) == (415, "unsupported_media_type")
    json_type = {"Content-Type": "application/json"}
    assert ask(shared, "POST", "/applications", json_type, body) == (401, "unauthorized")
    assert ask(shared, "POST", "/applications", json_type | token | {"Host": "evil.example"}, body)[0] == 403
    assert ask(shared, "POST", "/applications", json_type | token | {"Origin": "http://evil.example"}, body)[0] == 403
    # Nor may who has the token take code by its name.
    assert ask(shared, "POST", "/applications", json_type | token, body) == (400, "invalid_argument")
    assert not touched.exists()


def test_a_web_page_cannot_stop_the_server(shared: Server) -> None:
    page = {"Origin": "http://evil.example", "Host": "evil.example", "Content-Type": "text/plain"}
    assert ask(shared, "POST", "/stop", page) == (403, "forbidden")
    assert ask(shared, "POST", "/stop", {"Content-Type": "text/plain"})[0] == 401
    assert ask(shared, "POST", "/stop", {}) == (401, "unauthorized")
    assert shared.call("GET", "/health/live") == {"status": "live"}
    assert shared.predict("app", [1, 2])["output"] == "one"


def test_a_rebound_name_is_not_answered(shared: Server) -> None:
    for path in ("/status", "/health/live", "/schema/openapi.json", "/metrics"):
        assert ask(shared, "GET", path, {"Host": "evil.example"}) == (403, "forbidden")


def test_without_a_token_there_is_nothing_to_see_but_health(shared: Server) -> None:
    answer = httpx.get(f"{shared.place.management_url}/status", timeout=TIMEOUT_S, verify=NO_TLS)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/status", "/metrics", "/applications", "/models/m/logs", "/replicas", "/tokens", "/nothing"):
        assert ask(shared, "GET", path, {})[0] == 401, path
    assert ask(shared, "GET", "/health/live", {})[0] == 200
    assert ask(shared, "GET", "/health/ready", {})[0] == 200


def test_a_reader_sees_metrics_and_changes_nothing(shared: Server) -> None:
    with Clipper.connect(home=shared.home) as clipper:
        made = clipper.create_token("grafana", "read")
        reads = {"Authorization": f"Bearer {made.token}"}
        url = f"{shared.place.management_url}/metrics"
        assert "clipper_ready" in httpx.get(url, headers=reads, timeout=TIMEOUT_S, verify=NO_TLS).text
        assert ask(shared, "POST", "/stop", reads) == (403, "forbidden")
        clipper.revoke_token("grafana")
    assert ask(shared, "GET", "/metrics", reads) == (401, "unauthorized")


def test_the_token_is_in_its_file_and_nowhere_else(shared: Server) -> None:
    token = shared.token
    assert stat.S_IMODE((shared.home / "token").stat().st_mode) == 0o600
    ask(shared, "GET", "/status", {"Authorization": f"Bearer x{token}"})
    assert shared.files_with(token) == {shared.home / "token"}
    shown = [
        path.read_bytes()
        for pid in pids_of(shared)
        for path in (Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ"))
    ]
    assert not any(token.encode() in text for text in shown)


def pids_of(server: Server) -> list[int]:
    assert server.process is not None
    return [server.process.pid, *server.worker_pids]


@pytest.mark.long
def test_an_older_clippers_home_gets_a_token_and_a_removed_one_is_back(server: Server) -> None:
    with_application(server)
    assert server.stop() == 0
    # As a Clipper left it that knew of no tokens.
    (server.home / "token").unlink()
    server.start()
    first = server.token
    with Clipper.connect(home=server.home) as clipper:
        (server.home / "token").unlink()
        # Both sides find out by themselves: no operator is locked out.
        assert clipper.status().applications == 1
    assert server.token != first
    assert ask(server, "GET", "/status", {"Authorization": f"Bearer {first}"})[0] == 401
    server.until_ready()


def test_what_keeps_a_server_from_starting(tmp_path: Path) -> None:
    def start(*options: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(tmp_path), *options]
        ports = ["--query-port", "0", "--management-port", "0"]
        return subprocess.run([*argv, *ports], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    refused = start("--management-host", "0.0.0.0")
    assert (refused.returncode, "--insecure" in refused.stderr) == (2, True)
    (tmp_path / "token").write_text("guess me")
    refused = start()
    assert (refused.returncode, "holds no token" in refused.stderr) == (1, True)
    assert "guess me" not in refused.stderr


def test_metrics_are_open_and_hosts_accepted_where_an_operator_says_so(server: Server) -> None:
    options = ("--open-metrics", "--management-host", "0.0.0.0", "--insecure", "--allowed-host", "clipper.example")
    server.start(*options)
    assert server.place.management_url.startswith("http://127.0.0.1:")
    url = server.place.management_url
    assert httpx.get(f"{url}/metrics", timeout=TIMEOUT_S, verify=NO_TLS).status_code == 200
    host = {"Host": "clipper.example", "Authorization": f"Bearer {server.token}"}
    assert ask(server, "GET", "/status", host)[0] == 200
    assert ask(server, "GET", "/status", {**host, "Host": "evil.example"})[0] == 403


def test_the_management_port_opens_no_application_that_requires_a_key(shared: Server) -> None:
    token, body = {"Authorization": f"Bearer {shared.token}"}, json.dumps({"input": [1, 2]}).encode()
    json_type, path = {"Content-Type": "application/json"}, "/applications/app/predict"
    shared.call("PATCH", "/applications/app", {"require_key": True})
    try:
        assert ask(shared, "POST", path, token | json_type, body) == (401, "unauthorized")
        assert ask(shared, "POST", path, token | json_type | {"Clipper-Api-Key": shared.token}, body)[0] == 401
        key = shared.call("POST", "/keys", {"name": "mine", "applications": ["app"]})["key"]
        assert ask(shared, "POST", path, token | json_type | {"Clipper-Api-Key": key}, body) == (200, "")
        # Nor does a key open the management port.
        assert ask(shared, "POST", path, {"Authorization": f"Bearer {key}"} | json_type, body)[0] == 401
        shared.call("DELETE", "/keys/mine")
    finally:
        shared.call("PATCH", "/applications/app", {"require_key": False})
    # An error of the query port comes back unchanged.
    assert ask(shared, "POST", path, token | json_type, b'{"input":[1]}') == (400, "wrong_input")
    assert ask(shared, "POST", "/applications/none/predict", token | json_type, body) == (404, "not_found")
