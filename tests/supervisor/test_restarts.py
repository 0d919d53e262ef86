"""A real server whose replicas all die, while queries wait for them."""

import pytest

from tests.supervisor.live_server import APP, Server

# Ends its process over negative inputs.
MODEL = """
import os

def predict(inputs):
    if min(float(row.min()) for row in inputs) < 0:
        os._exit(3)
    return [float(row[0]) for row in inputs]
"""
NEIGHBOURS = 20


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_input_that_ends_all_replicas_costs_no_query_that_has_the_time(shared: Server, replicas: int) -> None:
    # A version without a predecessor, which would answer some queries while this one fails.
    name = f"fragile-{replicas}"
    assert shared.deploy(name, MODEL, input_type="float64[2]", replicas=replicas)["state"] == "ready"
    # The time for a busy machine to start replicas again and again.
    shared.call("POST", "/applications", {**APP, "name": name, "links": [{"model": name}], "slo_ms": 600_000})
    rows = [[float(value), 0.0] for value in range(NEIGHBOURS)]
    rows.insert(NEIGHBOURS // 2, [-1.0, 0.0])
    answers = shared.predict_batch(name, rows)
    deadly = answers.pop(NEIGHBOURS // 2)
    assert deadly["error"] == "model_error" and "died while evaluating this input" in deadly["cause"]
    assert [one.get("output") for one in answers] == [float(value) for value in range(NEIGHBOURS)], answers
