"""Newcomers through a real server: a bad one is stopped and said so, a good one takes over."""

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.supervisor.live_server import Server, answering
from tests.supervisor.three_models import ROW
from tests.waiting import until

pytestmark = pytest.mark.long

APP = {"name": "app", "slo_ms": 20_000, "links": [{"model": "m"}], "policy": "thompson", "ramp": 0.5}
ONES, TWOS, THREES = (answering(value) for value in (1, 2, 3))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ramps") / "home")
    try:
        server.start()
        yield server
    finally:
        server.clean_up()


@pytest.fixture
def live(server: Server) -> Iterator[Server]:
    """Version 1 of m answers 1, and an application follows it."""
    deploy(server, "m", ONES)
    server.call("POST", "/applications", APP)
    yield server
    for each in server.call("GET", "/applications"):
        server.call("DELETE", f"/applications/{each['name']}")
    server.call("DELETE", "/models/m")


def deploy(server: Server, model: str, code: str, **fields: Any) -> str:
    made = server.deploy(model, code, wait=False, input_type="float64[2]", **fields)
    assert server.decided(model, made["version"])["state"] == "ready"
    version: str = made["version"]
    return version


def application(server: Server, name: str = "app") -> Any:
    return server.call("GET", f"/applications/{name}")


def newcomers(server: Server) -> list[tuple[str, str | None, bool]]:
    return [(one["version"], one["before"], one["stopped"] is not None) for one in application(server)["newcomers"]]


def current(server: Server) -> Any:
    return server.call("GET", "/models/m")["current"]


def answers(server: Server, times: int) -> Counter[int]:
    return Counter(server.predict("app", ROW)["output"] for _ in range(times))


def teach(server: Server, label: int, times: int) -> Counter[int]:
    """Ask, and say that ``label`` was right; what was answered."""
    asked = [server.predict("app", ROW) for _ in range(times)]
    told = [{"query_id": one["query_id"], "label": label} for one in asked]
    assert server.observe("app", observations=told).status_code == 200
    return Counter(one["output"] for one in asked)


def evidence_in_the_store(server: Server) -> list[str]:
    with contextlib.closing(sqlite3.connect(server.home / "selection.sqlite3")) as store:
        return [name for (name,) in store.execute("SELECT name FROM sums") if "/ramp" in name]


def test_a_bad_deployment_is_rolled_back_and_said_so(live: Server) -> None:
    live.call("POST", "/applications", {**APP, "name": "other", "policy": "single"})
    assert deploy(live, "m", TWOS) == "2"
    assert newcomers(live) == [("2", "1", False)] and current(live) == "2"
    assert live.predict("other", ROW)["output"] == 2, "without feedback a deployment is for all at once"
    answered = teach(live, 1, 60)
    assert 10 < answered[2] < 50  # half of them, by chance: others than these come once in ten million runs
    until(lambda: current(live) == "1")
    assert newcomers(live) == [("2", "1", True)]
    until(lambda: answers(live, 5) == {1: 5})
    assert live.predict("other", ROW)["output"] == 1, "the model is rolled back for all that follow it"
    (problem,) = [each for each in live.call("GET", "/status")["problems"] if "was stopped" in each]
    assert problem.startswith("application 'app': m:2 was stopped: ") and "max_loss_increase" in problem
    # The counts beside it are those that it was stopped by.
    (stopped,) = application(live)["newcomers"]
    told = f"{stopped['feedback']} of its answers with feedback lost {stopped['mean_loss']:.3f} on average, "
    assert f"{told}{stopped['rest_feedback']} others {stopped['rest_mean_loss']:.3f}" in stopped["stopped"]
    assert stopped["feedback"] > 0 and stopped["mean_loss"] == 1.0
    assert live.call("GET", "/status")["ready"]
    assert 'clipper_newcomer_stopped{application="app",model="m",version="2"} 1.0' in live.metrics
    assert "application app: m:2 was stopped" in live.log

    # A rollback does not return to it, whichever way it is asked for; who names it is told why it was stopped.
    model = live.call("GET", "/models/m")
    assert model["previous"] is None and model["versions"][1]["stopped"].startswith("application 'app': ")
    refused = live.call("POST", "/models/m/rollback", {}, status=409)["cause"]
    assert "no version to return to" in refused and "version 2 was stopped (application 'app': " in refused
    refused = live.call("POST", "/models/m/rollback", {"version": "2"}, status=409)["cause"]
    assert "was stopped (application 'app': " in refused and "allow_stopped" in refused
    assert current(live) == "1"

    # It holds until somebody does something about it, and so does a ramp, also where the server is another one.
    assert deploy(live, "o", ONES) == "1"
    live.call("PUT", "/applications/app/links/o", {})
    live.kill()
    live.start()
    assert newcomers(live) == [("2", "1", True), ("1", None, False)]
    assert application(live)["newcomers"][0] == stopped
    assert current(live) == "1" and answers(live, 5) == {1: 5}
    live.call("DELETE", "/applications/app/links/o")
    assert deploy(live, "m", THREES) == "3"
    assert newcomers(live) == [("3", "1", False)]
    live.call("POST", "/models/m/rollback", {"version": "1"})
    assert newcomers(live) == [] and answers(live, 5) == {1: 5}
    assert not [each for each in live.call("GET", "/status")["problems"] if "was stopped" in each]


def test_a_rollback_during_a_ramp_has_nothing_to_undo(live: Server) -> None:
    assert deploy(live, "m", TWOS) == "2"
    model = live.call("POST", "/models/m/rollback", {})
    assert (model["current"], model["previous"]) == ("1", None)
    assert newcomers(live) == [] and answers(live, 5) == {1: 5}
    refused = live.call("POST", "/models/m/rollback", {}, status=409)["cause"]
    assert "no version to return to" in refused and "version 2 is " in refused and "name one" in refused
    # A rollback that names version 2 may have it, and returns to the version before it later.
    model = live.call("POST", "/models/m/rollback", {"version": "2"})
    assert (model["current"], model["previous"]) == ("2", "1")


def test_who_names_a_stopped_version_may_have_it(live: Server) -> None:
    deploy(live, "m", TWOS)
    teach(live, 1, 60)
    until(lambda: current(live) == "1")
    model = live.call("POST", "/models/m/rollback", {"version": "2", "allow_stopped": True})
    assert (model["current"], model["previous"], newcomers(live)) == ("2", "1", [])
    assert answers(live, 5) == {2: 5}
    # It stays one that no rollback returns to, until a version is deployed over it.
    model = live.call("POST", "/models/m/rollback", {})
    assert (model["current"], model["previous"]) == ("1", None)
    live.call("POST", "/models/m/rollback", {"version": "2", "allow_stopped": True})
    live.call("PATCH", "/applications/app", {"ramp": None})
    deploy(live, "m", THREES)
    model = live.call("GET", "/models/m")
    assert (model["current"], model["previous"], model["versions"][1]["stopped"]) == ("3", "2", None)


def test_a_good_deployment_takes_over(live: Server) -> None:
    assert deploy(live, "m", TWOS) == "2"
    assert teach(live, 2, 50)[1] > 5  # of half of them by chance; fewer come once in hundreds of millions of runs
    until(lambda: newcomers(live) == [])
    until(lambda: answers(live, 5) == {2: 5})
    assert current(live) == "2"
    assert "m:2 is through" in live.log
    (ended,) = application(live)["ended_ramps"]
    assert (ended["model"], ended["version"]) == ("m", "2") and ended["feedback"] > 0 == ended["mean_loss"]
    assert live.call("GET", "/models/m")["versions"][-1]["created_at"] < ended["ended_at"] < time.time()
    assert "clipper_newcomer_share{" not in live.metrics
    # The store drops the evidence of the ramp.
    until(lambda: not evidence_in_the_store(live))
    deploy(live, "m", THREES)
    teach(live, 2, 4)
    until(lambda: evidence_in_the_store(live))
    assert newcomers(live) == [("3", "2", False)]


def test_a_bad_link_is_stopped_and_may_be_tried_again(live: Server) -> None:
    assert deploy(live, "m", TWOS, make_current=False) == "2"
    live.call("PUT", "/applications/app/links/m:2", {})
    assert newcomers(live) == [("2", None, False)]
    teach(live, 1, 60)
    until(lambda: newcomers(live) == [("2", None, True)])
    until(lambda: answers(live, 20) == {1: 20})
    assert [link["version"] for link in application(live)["links"]] == [None, "2"]
    # It stays so by what else is changed, and is tried again once it is linked again.
    live.call("PATCH", "/applications/app", {"slo_ms": 15_000, "ramp": 0.25})
    assert newcomers(live) == [("2", None, True)] and answers(live, 10) == {1: 10}
    live.call("PUT", "/applications/app/links/m:2", {})
    assert newcomers(live) == [("2", None, False)]
    assert 2 in answers(live, 60)
    live.call("PATCH", "/applications/app", {"ramp": None})
    assert newcomers(live) == []
    live.call("DELETE", "/applications/app/links/m:2")
    assert answers(live, 5) == {1: 5}


def test_a_compared_version_keeps_running_and_its_removal_ends_the_ramp(live: Server) -> None:
    for code in (TWOS, THREES):
        deploy(live, "m", code)
    # The second was overtaken before feedback had told anything: what answers is still the first.
    assert newcomers(live) == [("3", "1", False)]
    assert set(answers(live, 30)) == {1, 3}
    model = live.call("GET", "/models/m")
    assert model["previous"] == "1", "nobody is rolled back to what was still ramped"
    assert {one["version"]: one["state"] for one in model["versions"]} == {"1": "ready", "2": "sleeping", "3": "ready"}
    live.call("DELETE", "/models/m/versions/1")
    assert newcomers(live) == [] and answers(live, 10) == {3: 10}


def teach_by_context(server: Server, losses: dict[str, dict[int, float]], chance: Random, times: int) -> None:
    """Ask so many queries of each context, and say by chance whether the answer was right."""
    told = []
    for context, loss_of in losses.items():
        for _ in range(times):
            answer = server.predict("app", ROW, context=context)
            right = float(chance.random() >= loss_of[answer["output"]])
            told.append({"query_id": answer["query_id"], "reward": right})
    assert server.observe("app", observations=told).status_code == 200


def test_one_that_is_the_best_in_one_context_is_let_through(live: Server) -> None:
    """By its mean over both contexts it is twice as bad as the models that the policy asks in each of them."""
    losses = {"x": {1: 0.4, 2: 0.6, 3: 0.05}, "y": {1: 0.3, 2: 0.0, 3: 0.8}}
    chance = Random(5)
    deploy(live, "o", TWOS)
    deploy(live, "p", THREES)
    live.call("PATCH", "/applications/app", {"ramp": None, "policy": "exp3"})
    live.call("PUT", "/applications/app/links/o", {})
    for _ in range(6):
        teach_by_context(live, losses, chance, 25)
    live.call("PATCH", "/applications/app", {"ramp": 0.3})
    live.call("PUT", "/applications/app/links/p", {})
    assert newcomers(live) == [("1", None, False)]

    def is_judged() -> bool:
        teach_by_context(live, losses, chance, 20)
        return newcomers(live) != [("1", None, False)]

    until(is_judged)
    assert newcomers(live) == [], "it was stopped"
    (ended,) = application(live)["ended_ramps"]
    assert ended["compared"] < ended["feedback"] and ended["mean_loss"] < ended["rest_mean_loss"]
    assert "where the policy would ask it" in live.log
    for model in "op":
        live.call("DELETE", f"/applications/app/links/{model}")
        live.call("DELETE", f"/models/{model}")
