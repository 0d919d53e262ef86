"""An operator's work on applications, on a real server."""

from typing import Any

import pytest

from clipper.settings.application import ApplicationSettings
from clipper.settings.fields import settings_of
from tests.supervisor.live_server import APP, Server, with_application
from tests.waiting import until


def test_applications_change_while_they_are_served(server: Server) -> None:
    with_application(server)
    assert server.call("POST", "/applications", APP, status=409)["error"] == "conflict"
    server.call("PATCH", "/applications/app", {"slo_ms": 500, "default_output": None})
    application = server.call("GET", "/applications/app")
    assert application["slo_ms"] == 500 and application["default_output"] is None
    server.call("DELETE", "/applications/app/links/m:2", status=404)
    server.call("DELETE", "/applications/app/links/m:1")  # as lists show the link to the current version
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


# Those of pipelines, which link no models: tests/supervisor/test_pipelines.py.
OF_PIPELINES = ("steps", "output", "max_replicas")
# Of each other setting a value that is not its default.
SET: dict[str, Any] = {
    "slo_ms": 77.0,
    "waking_slo_ms": 900.0,
    "default_output": [1, None],
    "policy": {"name": "exp3", "parameters": {"eta": 0.3}},
    "loss": {"name": "absolute", "parameters": {"range": 2.0}},
    "half_life": None,
    "require_key": True,
    "show_model": False,
    "max_in_flight": 7,
    "max_per_second": 9.5,
    "null_is_nan": True,
    "ignore_unknown_fields": True,
    "nan_as_text": True,
    "wait": "all",
    "features": "input",
    "prior_weight": 3.0,
    "inherit": 0.5,
    "ramp": None,
    "max_loss_increase": None,
    "confidence_threshold": 0.5,
    "confidence_from": "probabilities",
    "label_field": "score",
    "calibrate": True,
    "feedback_ttl_s": 60.0,
    "log_decisions": 0.5,
    "log_inputs": "sampled",
    "redact": "name, email",
    "cost_weight": 0.25,
}


# They contradict some of the others: see the next test.
BUDGETS = ("max_cost_per_query", "min_quality")


def test_every_setting_is_kept_as_it_is_made_and_as_it_is_changed(shared: Server) -> None:
    left_out = {*OF_PIPELINES, *BUDGETS}
    assert list(SET) == [one.keyword for one in settings_of(ApplicationSettings) if one.keyword not in left_out]
    plain = shared.call("POST", "/applications", {"name": "plain", "links": [{"model": "m"}]})
    made = shared.call("POST", "/applications", {"name": "made", "links": [{"model": "m"}], **SET})
    assert {name: made[name] for name in SET} == SET
    assert {name for name in SET if plain.get(name) == SET[name]} == set()

    shared.call("PATCH", "/applications/plain", SET)
    changed = shared.call("GET", "/applications/plain")
    assert {name: changed[name] for name in SET} == SET
    unchanged = shared.call("PATCH", "/applications/plain", {"slo_ms": 77})
    assert {**unchanged, "last_minute": changed["last_minute"]} == changed


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_is_kept_changed_and_taken_away(shared: Server, budget: str) -> None:
    name = budget.replace("_", "-")
    new = {"name": name, "links": [{"model": "m", "cost": 1}], "policy": "thompson"}
    made = shared.call("POST", "/applications", {**new, budget: 0.5})
    assert made[budget] == 0.5
    assert shared.call("PATCH", f"/applications/{name}", {budget: 0.75})[budget] == 0.75
    assert shared.call("PATCH", f"/applications/{name}", {"slo_ms": 30})[budget] == 0.75
    other = next(each for each in BUDGETS if each != budget)
    assert shared.call("PATCH", f"/applications/{name}", {budget: None, other: 0.5})[other] == 0.5
    unlimited = shared.call("PATCH", f"/applications/{name}", {other: None, "policy": "ensemble"})
    assert (unlimited[budget], unlimited[other]) == (None, None)


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_over_models_without_costs_is_refused(shared: Server, budget: str) -> None:
    name, free = f"free-{budget.replace('_', '-')}", {"policy": "thompson", budget: 0.5}
    why = f"{budget} weighs the costs of models, but no linked model has one: expected a cost for each"
    for links in (
        [{"model": "m"}],
        [{"model": "m", "cost": 0}],
        [{"model": "m"}, {"model": "m", "version": "1", "shadow": True, "cost": 1}],
    ):
        assert why in shared.call("POST", "/applications", {"name": name, "links": links, **free}, status=400)["cause"]
    shared.call("POST", "/applications", {"name": name, "links": [{"model": "m"}], "policy": "thompson"})
    assert why in shared.call("PATCH", f"/applications/{name}", {budget: 0.5}, status=400)["cause"]
    shared.call("PUT", f"/applications/{name}/links/m", {"cost": "auto"})
    shared.call("PATCH", f"/applications/{name}", {budget: 0.5})
    # The cost that it had may be taken away all the same, and then it is said.
    shared.call("PUT", f"/applications/{name}/links/m", {"cost": None})
    until(lambda: "none of its models has a cost" in (shared.call("GET", f"/applications/{name}")["problem"] or ""))
    assert "cost" in shared.call("GET", f"/applications/{name}/policy")["problem"]
