"""Costs of models through a live server: refused where they are none, shown, and what a cascade saves by them."""

import pytest

from tests.supervisor.live_server import Server
from tests.supervisor.three_models import APP, ROW, learned, teach, with_models
from tests.waiting import until

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


def sleeping(output: object) -> str:
    return f"import time\ndef predict(inputs): return time.sleep(0.1 * len(inputs)) or [{output}] * len(inputs)\n"


@pytest.mark.long
def test_costs_are_measured_where_nobody_says_them(server: Server) -> None:
    with_models(server)
    server.deploy("slow", sleeping(2), input_type="float64[2]")
    links = [{"model": "slow", "cost": "auto"}, {"model": "two", "cost": "auto"}]
    # Both models are right, so only their costs tell them apart: a loss of 0.01 for each millisecond.
    app = {**APP, "links": links, "policy": {"name": "thompson"}, "cost_weight": 0.01, "half_life": None, "ramp": None}
    made = server.call("POST", "/applications", app)
    assert [link["cost"] for link in made["links"]] == ["auto", "auto"]
    # Nothing has been measured: nobody claims to know a cost, and all are asked alike.
    now = learned(server)
    assert (now["mean_cost"], [each["cost"] for each in now["models"].values()]) == (None, [None, None])
    assert now["models"]["slow"]["share"] == pytest.approx(0.5, abs=0.1)

    def measured():
        server.predict("app", [1.0, float(len(asked))])
        asked.append(None)
        models = learned(server)["models"]
        # On a busy machine a first batch of the quick one may take as long as the slow one sleeps.
        return models if (models["slow"]["cost"] or 0) >= 100 and (models["two"]["cost"] or 30) < 30 else None

    asked: list[None] = []
    assert until(measured)["two"]["cost"] > 0
    ids = [server.predict("app", [2.0, float(number)])["query_id"] for number in range(60)]
    server.observe("app", observations=[{"query_id": id_, "label": 2} for id_ in ids])
    found = until(lambda: (now := learned(server))["observations"] == 60 and now)
    assert found["models"]["two"]["share"] > 0.9
    assert found["mean_cost"] > 0 and found["models"]["slow"]["mean_loss"] == 0

    # A cost that is given is gone by, beside those that are measured.
    server.call("PUT", "/applications/app/links/two", {"cost": 500})
    assert until(lambda: learned(server)["models"]["two"]["cost"] == 500)
    answer = server.call("PUT", "/applications/app/links/two", {"cost": "often"}, status=400)
    assert "cost" in answer["cause"]


@pytest.mark.long
def test_a_cascade_goes_by_measured_costs_without_any_feedback(cascading: Server) -> None:
    """The dear one was linked first: the first queries ask it, and from when it has been measured the cheap one."""
    server = cascading
    server.deploy("slow", sleeping('{"label": 7, "confidence": 0.9}'), input_type="float64[2]")
    links = [{"model": "slow", "cost": "auto"}, {"model": "sure", "cost": "auto"}]
    server.call("POST", "/applications", {**APP, "links": links, "policy": CASCADE, "ramp": None})
    assert server.predict("app", ROW)["output"]["label"] == 7

    def labels():
        found.append(server.predict("app", [3.0, float(len(found))])["output"]["label"])
        return found

    found: list[int] = []
    until(lambda: labels()[-5:] == [2] * 5)
