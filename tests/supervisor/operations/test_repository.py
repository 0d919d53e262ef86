"""Loading and unloading by the repository extension, and by the number of replicas."""

from typing import Any

import httpx

from tests.supervisor.live_server import APP, NO_TLS, Own, Server, answering, with_application
from tests.waiting import TIMEOUT_S, until


def is_ready(server: Server, application: str) -> bool:
    url = f"{server.place.query_url}/v2/models/{application}/ready"
    return httpx.get(url, verify=NO_TLS, timeout=TIMEOUT_S).status_code == 200


def test_models_are_unloaded_and_loaded_again(server: Server) -> None:
    with_application(server, replicas={"min": 0, "max": 2})
    load, unload = (f"/v2/repository/models/app/{action}" for action in ("load", "unload"))
    # As Triton's clients send it.
    assert server.call("POST", unload, {"parameters": {"unload_dependents": False}}, status=200) == {}
    assert server.call("GET", "/models/m/versions/1")["state"] == "unloaded"
    until(lambda: not server.ready_pids("m"))
    assert not is_ready(server, "app")
    # It does not wake.
    assert server.predict("app", [1, 2])["error"] == "no_replica"
    (problem,) = (each for each in server.call("GET", "/status")["problems"] if "unloaded" in each)
    assert "clipper model scale m 1" in problem
    # And as curl without a body does.
    server.call("POST", unload, status=200)
    # A restart leaves it so.
    server.kill()
    server.start()
    assert server.call("GET", "/models/m/versions/1")["state"] == "unloaded"
    assert server.call("POST", load, {}, status=200) == {}
    assert server.predict("app", [1, 2])["output"] == "one"
    assert server.call("GET", "/models/m/versions/1")["scaling"] == {"min": 0, "max": 2}
    server.call("POST", load, status=200)


def test_what_cannot_be_loaded_or_unloaded(shared: Server, own: Own) -> None:
    def refused(action: str, status: int, body: Any = None, name: str = own.name) -> str:
        answer = shared.call("POST", f"/v2/repository/models/{name}/{action}", body or {}, status)
        # Triton's clients show the first, and this API's the last.
        assert answer["error"] == answer["cause"] and answer["code"]
        return str(answer["error"])

    assert "clipper deploy" in refused("load", 400, {"parameters": {"file:1/model.onnx": "AAAA"}})
    assert "clipper app list" in refused("unload", 404, name="nobody")
    other = {**APP, "name": f"{own.name}-too", "links": [{"model": own.name}]}
    shared.call("POST", "/applications", other)
    assert f"also serve {other['name']}" in refused("unload", 409)
    shared.call("DELETE", f"/applications/{other['name']}")
    made = shared.call("POST", "/tokens", {"name": own.name, "role": "read"})
    answer = httpx.post(
        f"{shared.place.management_url}/v2/repository/models/{own.name}/unload",
        json={},
        headers={"Authorization": f"Bearer {made['token']}"},
        verify=NO_TLS,
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 403
    shared.call("DELETE", f"/tokens/{own.name}")
    assert is_ready(shared, own.name)


def test_an_unloaded_version_is_loaded_by_a_number_of_replicas(own: Own) -> None:
    own.call("POST", "/scale", {"replicas": 3})
    own.call("POST", "/scale", {"replicas": 0})
    until(lambda: not own.server.ready_pids(own.name))
    # The deployment that would make the version again has the replicas from before.
    assert own.call("GET", "/deployments")["1"]["replicas"] == 3
    own.call("POST", "/scale", {"replicas": 1})
    until(lambda: len(own.server.ready_pids(own.name)) == 1)
    assert own.server.predict(own.name, [1, 2])["output"] == "one"
    # Another version that becomes current is not kept from it.
    own.call("POST", "/scale", {"replicas": 0})
    assert own.deploy(answering("two"))["state"] == "ready"
    until(lambda: own.server.predict(own.name, [1, 2]).get("output") == "two")
