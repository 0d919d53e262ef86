"""Model selection end to end: real workers, containers and stores, driven as operators and applications do."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from clipper.worker.selection.query import QueryIds
from tests.supervisor.live_server import Server
from tests.supervisor.three_models import (
    APP,
    MODELS,
    NEVER_FORGETS,
    ROW,
    learned,
    teach,
    until_learned,
    with_application,
)
from tests.waiting import TIMEOUT_S, until


def instances(ids: list[int]) -> set[int]:
    return {QueryIds.instance_of(id_) for id_ in ids}


def from_both_workers(server: Server) -> list[int]:
    """Queries of each of two workers."""
    ids: list[int] = []

    def asked_both() -> bool:
        ids.append(server.predict("app", ROW)["query_id"])
        return len(instances(ids)) == 2

    until(asked_both)
    return ids


def observe_from_all(server: Server, ids: list[int]) -> None:
    """Tell each query's outcome so often that each worker has been told of those of the other."""
    for id_ in ids:
        answers = [server.observe("app", query_id=id_, label=2) for _ in range(12)]
        assert [answer.status_code for answer in answers] == [200] * len(answers), answers[0].text
        assert [answer.json()["duplicate"] for answer in answers] == [False] + [True] * 11


def sums(home: Path) -> int:
    with closing(sqlite3.connect(home / "selection.sqlite3")) as database, database:
        return int(database.execute("SELECT count(*) FROM sums").fetchone()[0])


@pytest.fixture(scope="module")
def forgetting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has learned for an application which was deleted, under its next supervisor: what was learned goes 10 s
    after that, while other tests run."""
    server = Server(tmp_path_factory.mktemp("forgetting") / "home")
    try:
        with_application(server, policy="exp4")
        teach(server, 2, 5)
        assert sums(server.home) > 0
        assert server.call("GET", "/applications/app")["id"] == "app#1"
        server.call("DELETE", "/applications/app")
        server.kill()
        yield server.start()
    finally:
        server.clean_up()


def test_an_application_has_none_of_what_the_one_of_its_name_learned(forgetting: Server) -> None:
    forgetting.call("POST", "/applications", {**APP, "policy": "exp4"})
    assert forgetting.call("GET", "/applications/app")["id"] == "app#2"
    assert learned(forgetting)["observations"] == 0


def test_feedback_decides_which_model_answers(server: Server) -> None:
    links = [{"model": "one"}, {"model": "two"}, {"model": "three", "shadow": True}]
    policy = {"name": "exp3", "parameters": {"eta": 0.5}}
    with_application(server, links=links, policy=policy, default_output=0, **NEVER_FORGETS)
    before = learned(server)
    assert (before["policy"], before["parameters"], before["loss"]) == ("exp3", {"eta": 0.5}, "zero_one")
    assert before["models"]["one"]["share"] == pytest.approx(0.5, abs=0.1)
    assert before["models"]["one"]["mean_loss"] is None

    teach(server, 2, 60)
    after = learned(server)["models"]
    assert after["two"]["share"] > 0.8 > 0.2 > after["one"]["share"]
    assert (after["two"]["mean_loss"], after["one"]["mean_loss"], after["three"]["mean_loss"]) == (0.0, 1.0, 1.0)
    # The shadow has been scored on each query, and has no say.
    assert after["three"]["scored"] == pytest.approx(learned(server)["observations"])
    assert (after["three"]["share"], after["three"]["shadow"], after["three"]["pulls"]) == (0.0, True, 0.0)
    outputs = {server.predict("app", ROW)["output"] for _ in range(50)}
    assert 2 in outputs and 3 not in outputs

    teach(server, 1, 40, context="u")
    # A context knows its own feedback, and of all the others' what the prior weighs; without any, all of it.
    found = {context: learned(server, context)["observations"] for context in (None, "u", "v")}
    assert found == pytest.approx({None: 100, "u": 40 + 10 * (1 + 8 / 40), "v": 100})
    metrics = server.metrics
    assert 'clipper_selection_feedback_total{application="app",outcome="joined"} 100.0' in metrics
    assert 'clipper_selection_scored_total{application="app",model="three"} 100.0' in metrics


def test_feedback_reaches_the_worker_that_answered_whichever_gets_it(server: Server) -> None:
    with_application(server, "--workers", "2", policy="exp4", **NEVER_FORGETS)
    ids = from_both_workers(server)
    observe_from_all(server, ids)
    until_learned(server, len(ids))
    # The next supervisor knows the workers that it takes over.
    more = from_both_workers(server)
    server.kill()
    server.start("--workers", "2").until_ready()
    observe_from_all(server, more)
    assert instances(more) == instances(ids)


def queries(server: Server) -> float:
    """Of all workers together."""
    return float(server.metrics.partition('clipper_queries_total{application="app"} ')[2].partition("\n")[0])


@pytest.mark.long
def test_what_was_learned_survives_the_death_of_a_worker(server: Server) -> None:
    with_application(server, "--workers", "2", policy="exp4", **NEVER_FORGETS)
    teach(server, 2, 50)
    before = until_learned(server, 50)
    old = instances(from_both_workers(server))
    counted = queries(server)
    server.kill_workers()
    assert server.call("GET", "/status")["workers"][0]["restarts"] == 1
    after = until_learned(server, 50)
    assert queries(server) == counted > 0, "what the dead had counted stays in the sum"
    assert {name: model["scored"] for name, model in after["models"].items()} == dict.fromkeys(MODELS, 50)
    assert after["models"]["two"]["share"] == pytest.approx(before["models"]["two"]["share"])
    # Feedback finds the new workers; that on queries of the dead ones is refused, and not lost in silence.
    ids = from_both_workers(server)
    assert not instances(ids) & old
    observe_from_all(server, ids)


def test_nothing_acknowledged_is_lost_when_everything_is_killed(server: Server) -> None:
    with_application(server, "--workers", "2", policy="exp4", **NEVER_FORGETS)
    acknowledged = [0] * 4
    stopped = threading.Event()

    def observe(index: int) -> None:
        while not stopped.is_set():
            try:
                begun = acknowledged[index]
                items = [{"input": [index, n], "label": 2, "id": f"{index}-{begun}-{n}"} for n in range(5)]
                answer = server.observe("app", observations=items)
            except (httpx.TransportError, OSError):
                return  # the kill came before the answer: these may have been learned, or not
            acknowledged[index] += sum("observed" in each for each in answer.json()["observations"])

    threads = [threading.Thread(target=observe, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: min(acknowledged) >= 50)
    server.kill_everything()
    stopped.set()
    for thread in threads:
        thread.join()

    server.start("--workers", "2").until_ready()
    # Up to five of each thread were under way.
    assert sum(acknowledged) <= learned(server)["observations"] <= sum(acknowledged) + 20


class Load(threading.Thread):
    """Queries one after another."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.url = f"{server.place.query_url}/app/predict"
        self.answers: list[dict[str, Any]] = []
        self.enough = False

    def run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S) as client:
            while not self.enough:
                answer = client.post(self.url, json={"input": [len(self.answers), 0.0], "context": "u"})
                self.answers.append(answer.json())


@pytest.mark.long
def test_an_application_is_changed_under_load_without_losing_a_query(server: Server) -> None:
    with_application(server, "--workers", "2", policy="exp3", **NEVER_FORGETS)
    teach(server, 2, 20)
    loads = [Load(server) for _ in range(3)]
    for load in loads:
        load.start()
    changes: list[dict[str, Any]] = [
        {"policy": {"name": "exp4", "parameters": {"eta": 0.01}}},
        {"policy": "ensemble", "half_life": 500},
        {"policy": {"name": "weighted", "parameters": {"weights": {"one": 1, "three": 3}}}},
        {"policy": "ucb1", "loss": {"name": "absolute", "parameters": {"range": 10}}, "prior_weight": 3},
        {"policy": "thompson", "feedback_ttl_s": 60},
    ]
    try:
        for change in changes:
            server.call("PATCH", "/applications/app", change)
            server.call("PUT", "/applications/app/links/three", {"shadow": True})
            server.call("DELETE", "/applications/app/links/one")
            server.call("PUT", "/applications/app/links/one", {})
            server.call("PUT", "/applications/app/links/three", {"shadow": False})
    finally:
        for load in loads:
            load.enough = True
            load.join()
    answers = [answer for load in loads for answer in load.answers]
    assert [answer for answer in answers if "error" in answer or answer["default"]] == []
    assert {answer["output"] for answer in answers} <= {1, 2, 3}
    found = until(lambda: now if (now := learned(server))["models"]["two"]["scored"] > 0 else None)
    assert (found["policy"], found["loss"]) == ("thompson", "absolute")


def test_a_deleted_applications_state_is_dropped_by_the_next_supervisor(forgetting: Server) -> None:
    until(lambda: sums(forgetting.home) == 0)
