"""Alert rules and dashboard: promtool's tests of the rules, and all expressions in a Prometheus that scrapes."""

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from clipper.supervisor.metrics import definitions
from clipper.supervisor.metrics.definitions import Group
from tests.deploy.prometheus import FILES, Prometheus, promtool, scraping
from tests.supervisor.live_server import Server, answering
from tests.waiting import TIMEOUT_S, until
from tests.wheels import ROOT

pytestmark = [pytest.mark.machine, pytest.mark.long]

RULES = [rule for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
TESTS = yaml.safe_load((FILES / "alerts.test.yml").read_text())["tests"]
DASHBOARD = json.loads((ROOT / "deploy/grafana/clipper.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Grafana puts these in place of a dashboard's variables if everything is chosen.
VARIABLES = {"$__rate_interval": "1m", "$application": ".*", "$model": ".*", "$instance": ".*"}
PAGE = (ROOT / "docs/monitoring.md").read_text()


def expressions() -> dict[str, str]:
    """Every expression of rules and dashboard, as Prometheus gets it, by where it stands."""
    found = {f"rule {number}, {rule.get('alert') or rule['record']}": rule["expr"] for number, rule in enumerate(RULES)}
    for panel in PANELS:
        found |= {f"panel {panel['title']}, {target['refId']}": target["expr"] for target in panel["targets"]}
    for annotation in DASHBOARD["annotations"]["list"]:
        found[f"annotation {annotation['name']}"] = annotation["expr"]
    for name, value in VARIABLES.items():
        found = {where: expression.replace(name, value) for where, expression in found.items()}
    return found


def names(expression: str) -> set[str]:
    """The metrics of an expression."""
    return set(re.findall(r"(?<![\"\w])(?:application:)?clipper_[\w:]+", expression))


def test_rules_tell_what_they_should_and_nothing_else() -> None:
    assert "SUCCESS" in promtool("check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")
    alerts = {rule["alert"] for rule in RULES if "alert" in rule}
    tried = {one["alertname"] for test in TESTS for one in test.get("alert_rule_test", ()) if one.get("exp_alerts")}
    assert alerts == tried
    assert {alert for alert in alerts if f"`{alert}`" not in PAGE} == set()
    assert all(rule["labels"]["severity"] in ("critical", "warning") for rule in RULES if "alert" in rule)


def test_panels_stand_beside_each_other_and_ask_the_chosen_prometheus() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & taken and max(x for x, _ in own) < 24, panel["title"]
        taken |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(each["datasource"] == chosen for panel in PANELS for each in (panel, *panel["targets"]))
    used = set(re.findall(r"\$(\w+)", json.dumps(PANELS)))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert used <= variables | {"__rate_interval"}
    assert re.search(r"\$\{?datasource", json.dumps(PANELS))


def post(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(server.place.query_url + path, json=body, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes, as the compose file's does, a server that learns, logs, refuses, and has what does not work."""
    folder = tmp_path_factory.mktemp("monitored")
    server = Server(folder / "home", "--open-metrics")
    try:
        server.start()
        for model in ("m", "n"):
            server.deploy(model, answering("one"), input_type="float64[2]")
        server.deploy("broken", "raise RuntimeError('not this one')\n", wait=False, input_type="float64[2]")
        app = {"slo_ms": 20_000, "input_type": "float64[2]"}
        learns = {"policy": {"name": "exp4"}, "log_decisions": 1, "links": [{"model": "m"}, {"model": "n"}]}
        server.call("POST", "/applications", app | learns | {"name": "learns"})
        app["links"] = [{"model": "broken"}]
        server.call("POST", "/applications", app | {"name": "fails"})
        server.call("POST", "/applications", app | {"name": "defaults", "default_output": 0})
        server.deploy("m", answering("two"), input_type="float64[2]")  # a newcomer
        address = server.place.management_url.removeprefix("http://")
        config = (ROOT / "deploy/docker/prometheus.yml").read_text()
        assert config.count("clipper:1338") == 1
        config = config.replace("clipper:1338", address).replace("15s", "1s")
        shutil.copy(FILES / "alerts.yml", folder)
        # The rules look when they are asked here, not each half minute.
        rules = folder / "alerts.yml"
        rules.write_text(rules.read_text().replace("interval: 30s", "interval: 1s"))
        with scraping(config, folder) as prometheus:
            asked = 0

            def ask() -> bool:
                """Queries, feedback and errors, until what counts them over time has something to show."""
                nonlocal asked
                asked += 1
                answer = post(server, "/learns/predict", {"input": [asked, 0]}).json()
                post(server, "/learns/observe", {"query_id": answer["query_id"], "label": "one"})
                post(server, "/learns/predict", {"input": "none"})
                for name in ("defaults", "fails"):
                    post(server, f"/{name}/predict", {"input": [1, 2]})
                rate = "rate(clipper_errors_total[1m]) > 0 and rate(clipper_errors_total[5m]) > 0"
                recorded = prometheus.query("application:clipper_failures:ratio_rate5m > 0")
                fires = 'ALERTS{alertname="ClipperErrorBudgetBurn", alertstate="firing"}'
                waits = 'ALERTS{alertname="ClipperApplicationDown", alertstate="pending"}'
                return all(map(prometheus.query, (rate, fires, waits))) and len(recorded) == 2

            until(ask)
            yield prometheus
    finally:
        server.clean_up()


# Metrics without a series as long as nothing of the kind has happened. Their help is exported all the same.
MAY_BE_ABSENT = {
    "clipper_decisions_dropped_total",
    # Only of servers that share a registry.
    "clipper_lease_leads",
    "clipper_lease_age_seconds",
    "clipper_lease_standbys",
}


def test_every_metric_of_every_expression_is_exported(prometheus: Prometheus) -> None:
    asked = {name for expression in expressions().values() for name in names(expression)}
    series = set(prometheus.get("label/__name__/values"))
    assert asked - series <= MAY_BE_ABSENT
    exported = {name for module in (definitions,) for group in vars(module).values() for name in _exported(group)}
    assert exported >= MAY_BE_ABSENT


def _exported(group: object) -> Iterator[str]:
    if isinstance(group, Group):
        for metric in group.metrics:
            kind = getattr(metric, "kind", "histogram")
            yield f"{metric.name}_total" if kind == "counter" else metric.name


def test_every_expression_is_answered_and_every_panel_shows_something(prometheus: Prometheus) -> None:
    found = {where: prometheus.query(expression) for where, expression in expressions().items()}
    # An alert has no series where all is well.
    assert [where for where, series in found.items() if not series and not where.startswith("rule")] == []
    for where, series in found.items():
        if "ratio_rate" in where:
            assert {one["metric"]["application"] for one in series} == {"learns", "defaults", "fails"}


def test_the_failures_of_a_server_are_told(prometheus: Prometheus) -> None:
    shares = {
        one["metric"]["application"]: float(one["value"][1])
        for one in prometheus.query("application:clipper_failures:ratio_rate5m")
    }
    assert shares == {"learns": 0, "defaults": 1, "fails": 1}
    firing = {one["metric"]["alertname"] for one in prometheus.query('ALERTS{alertstate="firing"}')}
    pending = {one["metric"]["alertname"] for one in prometheus.query('ALERTS{alertstate="pending"}')}
    # The newcomer errs, and is stopped if enough is known of it by then.
    assert firing - {"ClipperNewcomerStopped"} == {"ClipperErrorBudgetBurn"} and "ClipperApplicationDown" in pending


def test_the_autoscalers_metric_is_what_its_rule_asks_for(prometheus: Prometheus) -> None:
    folder = ROOT / "deploy/kubernetes/by-queries"
    (rule,) = yaml.safe_load((folder / "prometheus-adapter.yaml").read_text())
    scaler = yaml.safe_load((folder / "autoscaler.yaml").read_text())
    (metric,) = scaler["spec"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    series = rule["seriesQuery"].partition("{")[0]
    filled = {"<<.Series>>": series, "<<.LabelMatchers>>": "", "<<.GroupBy>>": "instance"}
    query = rule["metricsQuery"]
    for name, value in filled.items():
        query = query.replace(name, value)
    (found,) = prometheus.query(query)
    assert float(found["value"][1]) > 0
