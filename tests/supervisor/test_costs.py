"""Costs of models through a live server: refused where they are none, shown, and what a cascade saves by them."""

import pytest
from live_server import Server
from three_models import APP, ROW, learned, teach, with_models

from waiting import until

UNSURE = '{"label": 2, "confidence": 0.6}'
SURE = '{"label": 2, "confidence": 0.9}'
CASCADE = {"name": "cascade", "parameters": {"threshold": 0.8}}


@pytest.fixture
def cascading(server: Server) -> Server:
    with_models(server)
    for name, output in (("sure", SURE), ("unsure", UNSURE)):
        server.deploy(name, f"def predict(inputs): return [{output}] * len(inputs)\n", input_type="float64[2]")
    return server


def test_a_cascade_asks_by_costs_that_can_be_changed_while_it_serves(cascading: Server) -> None:
    server = cascading
    links = [{"model": "two", "cost": 10}, {"model": "unsure", "cost": 1}]
    app = {**APP, "links": links, "policy": CASCADE, "cost_weight": 0.01, "ramp": None}
    made = server.call("POST", "/applications", app)
    assert made["cost_weight"] == 0.01 and [link["cost"] for link in made["links"]] == [10, 1]
    teach(server, 2, 4)
    found = until(lambda: (now := learned(server))["mean_cost"] == 11 and now)
    assert found["stages"] == [1.0]
    models = found["models"]
    assert (models["unsure"]["cost"], models["unsure"]["threshold"], models["unsure"]["share"]) == (1, 0.8, 1)
    assert (models["two"]["cost"], models["two"]["threshold"]) == (10, None)
    # Costs are not in what is shown as their loss.
    assert (models["unsure"]["mean_loss"], models["two"]["mean_loss"]) == (0, 0)

    server.call("PUT", "/applications/app/links/two", {"cost": 0.5})
    server.call("PUT", "/applications/app/links/sure", {"cost": 20})
    # In the order of what they cost now: a label alone, an unsure answer, and the dearest one's.
    assert server.predict("app", ROW)["output"] == {"label": 2, "confidence": 0.9}

    for body in ({"cost": -1}, {"cost": "much"}, {"cost": 1e7}, {"cost": True}):
        answer = server.call("PUT", "/applications/app/links/sure", body, status=400)
        assert "cost" in answer["cause"]
    for change in ({"cost_weight": -0.1}, {"cost_weight": None}, {"cost_weight": 1e9}):
        answer = server.call("PATCH", "/applications/app", change, status=400)
        assert "cost_weight" in answer["cause"]
