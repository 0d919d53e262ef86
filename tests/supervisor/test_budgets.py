"""A budget through a live server: held, changed while it serves, and shown beside the frontier of its models."""

import pytest

from tests.supervisor.live_server import Server
from tests.supervisor.three_models import APP, ROW, learned, teach, with_models

LINKS = [{"model": "one", "cost": 1}, {"model": "two", "cost": 0.1}]


@pytest.mark.long
def test_a_budget_is_held_and_a_quality_kept(server: Server) -> None:
    with_models(server)
    # The model ``one`` is always right, and ``two`` never.
    server.call("POST", "/applications", {**APP, "links": LINKS, "max_cost_per_query": 0.4, "ramp": None})
    teach(server, 1, 300)
    frontier = server.call("GET", "/applications/app/report")["frontier"]
    assert frontier["cost"] == pytest.approx(0.4, rel=0.03)
    assert learned(server)["mean_cost"] == pytest.approx(frontier["cost"])
    assert frontier["models"] == [
        {"model": "two", "cost": 0.1, "quality": 0.0, "is_on_frontier": True},
        {"model": "one", "cost": 1.0, "quality": 1.0, "is_on_frontier": True},
    ]
    # A third of the queries asks the dear one, as chance would, too.
    assert frontier["quality"] == pytest.approx(1 / 3, abs=0.02)
    assert frontier["possible"] == pytest.approx(frontier["quality"], abs=0.02)
    assert (frontier["max_cost_per_query"], frontier["min_quality"]) == (0.4, None)

    server.call("PATCH", "/applications/app", {"max_cost_per_query": 5})
    assert {server.predict("app", ROW)["output"] for _ in range(10)} == {1}

    server.call("PATCH", "/applications/app", {"max_cost_per_query": None, "min_quality": 0.6})
    outputs = []
    for _ in range(60):
        answers = [server.predict("app", ROW) for _ in range(5)]
        outputs += [answer["output"] for answer in answers]
        pieces = [{"query_id": answer["query_id"], "label": 1} for answer in answers]
        server.observe("app", observations=pieces)
    assert outputs.count(1) / len(outputs) >= 0.6
    assert outputs.count(2) >= 20, "it keeps the quality, and saves what is left"

    refused = server.call("PATCH", "/applications/app", {"policy": "ensemble"}, status=400)
    assert "min_quality does not go with policy ensemble" in refused["cause"]
