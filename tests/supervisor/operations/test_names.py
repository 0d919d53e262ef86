"""Names with capitals, wherever a name goes."""

import httpx
import numpy as np
import pytest

from tests.supervisor.live_server import APP, NO_TLS, Server, answering, with_application
from tests.waiting import TIMEOUT_S, until

NAME, VERSION = "ResNet50", "V1.0-RC"
URL = f"/models/{NAME}"


@pytest.fixture
def named(server: Server) -> Server:
    with_application(server)
    assert server.deploy(NAME, answering("one"), input_type="float64[2]", version=VERSION)["state"] == "ready"
    server.call("POST", "/applications", {**APP, "name": NAME, "links": [{"model": NAME}]})
    return server


def test_names_with_capitals(named: Server) -> None:
    answer = named.predict(NAME, [1, 2])
    assert (answer["output"], answer["model"], answer["version"]) == ("one", NAME, VERSION)
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": np.ones(2).tolist()}
    url = f"{named.place.query_url}/v2/models/{NAME}"
    inferred = httpx.post(
        f"{url}/versions/{VERSION}/infer", json={"inputs": [tensor]}, verify=NO_TLS, timeout=TIMEOUT_S
    )
    assert (inferred.json()["model_name"], inferred.json()["model_version"]) == (NAME, VERSION)
    assert named.observe(NAME, query_id=answer["query_id"], label="one").json() == {
        "observed": True,
        "duplicate": False,
    }
    assert f'model="{NAME}",version="{VERSION}"' in named.metrics
    assert named.call("GET", f"{URL}/versions/{VERSION}")["state"] == "ready"
    assert f"{NAME}:{VERSION}#1" in named.call("GET", f"{URL}/logs")["lines"]
    # A version of its own name, a restart and a removal.
    assert named.deploy(NAME, answering("two"), input_type="float64[2]", version="V2")["state"] == "ready"
    until(lambda: named.predict(NAME, [1, 2])["output"] == "two")
    named.kill()
    named.start()
    assert named.predict(NAME, [1, 3])["version"] == "V2"
    named.call("DELETE", f"/applications/{NAME}")
    named.call("DELETE", URL)
    assert named.deploy(NAME.lower(), answering("one"), input_type="float64[2]")["state"] == "ready"


def test_names_that_differ_only_in_case_are_refused(named: Server) -> None:
    body = {"artifact": named.upload(answering("two")), "loader": "import", "target": "my_model:predict"}
    for path, fields, told in (
        (f"/models/{NAME.lower()}/versions", {}, f"'{NAME.lower()}' differs from '{NAME}' only in case"),
        (f"{URL}/versions", {"version": VERSION.lower()}, f"'{VERSION.lower()}' differs from '{VERSION}' only in case"),
    ):
        assert told in named.call("POST", path, {**body, **fields}, status=409)["cause"]
    told = named.call("POST", "/applications", {**APP, "name": NAME.upper()}, status=409)["cause"]
    assert f"'{NAME.upper()}' differs from '{NAME}' only in case" in told
    assert f"did you mean '{NAME}'?" in named.call("GET", f"/models/{NAME.lower()}", status=404)["cause"]
    assert f"did you mean '{NAME}'?" in named.call("GET", f"/applications/{NAME.lower()}", status=404)["cause"]
    named.call("POST", "/keys", {"name": "Web"})
    assert "only in case" in named.call("POST", "/keys", {"name": "web"}, status=409)["cause"]
    assert (
        named.call("POST", "/tokens", {"name": "Operator", "role": "read"}, status=400)["error"] == "invalid_argument"
    )
