"""The management port of a standby: whatever is called, it is answered, and says who leads."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from litestar.testing import TestClient

from clipper.api.server.app import create_app
from clipper.client.http_api import HttpApi
from clipper.errors import NotLeader
from clipper.settings.home import Place
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.leadership.succession import Standby, StandbyOperations
from clipper.supervisor.registry.shared import Leader
from clipper.supervisor.stop_requests import StopRequests
from tests.fuzz_management import Calling

ATTEMPTS = 200


def app_of_standby(folder: Path) -> Any:
    registry: Any = SimpleNamespace(shown_address="redis://h/0")
    stopping = StopRequests(0.0)
    standby = Standby(registry, Artifacts(folder), lambda: asyncio.sleep(0), stopping)
    standby.outcome = Leader(7, "http://other:1338", 1e9, is_ready=True)
    operations: Any = StandbyOperations(standby, registry, folder, Place(1, "http://m", "http://q", 0.0), stopping, {})
    return create_app(operations)


def test_whatever_is_called_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(app_of_standby(tmp_path), raise_server_exceptions=False) as client:
        server: Any = SimpleNamespace(
            ask=client.request, token="right", place=SimpleNamespace(management_url=str(client.base_url))
        )
        answers: list[int] = []

        def request(method: str, url: str, **named: Any) -> httpx.Response:
            if named["headers"].get("Authorization") != "Bearer right":  # that is the gate's, whoever leads
                refusal = {"error": "unauthorized", "cause": "no token"}
                return httpx.Response(401, json=refusal, request=httpx.Request(method, url))
            answer = client.request(method, url, **{name: named[name] for name in ("params", "content", "headers")})
            answers.append(answer.status_code)
            return answer

        calling = Calling(server)
        monkeypatch.setattr(httpx, "request", request)
        for number in range(ATTEMPTS):
            calling.attempt(number)
        assert {200, 503} <= set(answers)


def test_what_is_refused_says_who_leads(tmp_path: Path) -> None:
    with TestClient(app_of_standby(tmp_path)) as client:
        for path in ("/models", "/applications", "/tokens", "/events", "/series"):
            refusal = client.get(path)
            assert refusal.status_code == 503 and refusal.json()["error"] == "not_leader", path
            assert "http://other:1338 leads, with epoch 7" in refusal.json()["cause"]
        upload = client.put(f"/artifacts/{'ab' * 32}", content=b"x", headers={"Content-Type": "application/x-tar"})
        assert upload.status_code == 503
        assert client.get("/metrics").status_code == 200


def test_a_deployment_there_says_who_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks first by HEAD whether the artifact is there, and an answer to that has no text."""
    with TestClient(app_of_standby(tmp_path)) as client:
        api = HttpApi("http://127.0.0.1:1")
        monkeypatch.setattr(api, "_client", client)
        with pytest.raises(NotLeader, match="http://other:1338 leads, with epoch 7; ask there"):
            api.has(f"/artifacts/{'ab' * 32}")
