"""An operator's work on models: deployed, rolled back, scaled and deleted, on a real server."""

import threading
from pathlib import Path
from typing import Any

import pytest

from clipper.api.schemas import Logs, ReplicaState, ShownState
from clipper.supervisor.operations.models import tell_outdated
from clipper.supervisor.operations.views import condition_of
from tests.supervisor.live_server import Own, Server, answering, processes_of, with_application
from tests.waiting import until


def test_a_version_that_fails_leaves_the_current_one_and_says_why(own: Own) -> None:
    failed = own.deploy("print('first words')\nraise RuntimeError('no weights')")
    assert failed["state"] == "failed" and "no weights" in failed["last_error"]
    assert any("no weights" in line for line in failed["log_tail"])
    until(lambda: own.version("2")["replicas"] == [])
    assert own.current == "1"
    logs = own.call("GET", "/logs?version=2")["lines"]
    assert any("first words" in line for line in logs[f"{own.name}:2#1"])
    # It may be deployed again under its name.
    again = own.deploy(answering("two"), version="2", input_type="Doubles[ 2 ]")
    assert again["state"] == "ready" and again["current"] and again["last_error"] is None
    # Containers get the type in the notation of the protocol, however the deployment spelled it.
    assert again["input_type"] == "float64[2]"
    assert own.output() == "two"


def test_a_log_on_a_node_that_does_not_answer_says_so_once() -> None:
    for after, told in (
        ({}, ("b", "the rest of this log cannot be read now: Ray: no answer")),
        ({"m:1#2": "9"}, ("b",)),
    ):
        found = Logs({"m:1#1": ("a",), "m:1#2": ("b",)})
        tell_outdated(found, {"m:1#2": "Ray: no answer", "m:1#3": "Ray: no answer"}, after)
        assert found.lines == {"m:1#1": ("a",), "m:1#2": told}


def test_a_version_of_another_input_type_than_its_applications_fails(own: Own) -> None:
    failed = own.deploy(answering("two"), input_type="string")
    assert failed["state"] == "failed"
    assert f"{own.name!r} has inputs float64[2]" in failed["last_error"] and "takes string" in failed["last_error"]


def test_a_version_is_shown_with_its_description(shared: Server) -> None:
    shared.deploy("told", answering("one"), input_type="float64[2]", description="trained on May's clicks")
    assert shared.call("GET", "/models/told/versions/1")["description"] == "trained on May's clicks"
    assert shared.call("GET", "/models/m")["versions"][0]["description"] is None


def test_a_servers_manager_is_that_of_deployments_that_name_none(tmp_path: Path) -> None:
    server = Server(tmp_path / "home", "--manager", "docker").start()
    try:
        assert server.call("GET", "/status")["manager"] == "docker"
        body = {"artifact": server.upload(answering("x")), "loader": "import", "target": "my_model:predict"}
        # Docker refuses what it cannot run.
        refused = server.call("POST", "/models/m/versions", {**body, "placement": "pack"}, status=400)
        assert "expected manager 'ray', not 'docker'" in refused["cause"]
        server.call("POST", "/models/m/versions", body)
        server.call("POST", "/models/m/versions", {**body, "manager": "local", "input_type": "float64[2]"})
        found = server.call("GET", "/models/m/deployments")
        assert {name: one["manager"] for name, one in found.items()} == {"1": "docker", "2": "local"}
    finally:
        server.clean_up()


def test_a_version_tells_how_to_deploy_it_again(shared: Server) -> None:
    settings = {"input_type": "float64[2]", "sample": [1, 2], "cpus": 1, "batching": {"max_batch": 8}}
    shared.deploy("again", answering("one"), **settings)
    shared.deploy("again", answering("two"), input_type="float64[2]", make_current=False)
    shared.call("POST", "/models/again/scale", {"replicas": {"min": 1, "max": 2}})
    first, second = shared.call("GET", "/models/again/deployments").values()
    assert (first["version"], first["sample"], first["cpus"]) == ("1", [1, 2], 1.0)
    assert first["batching"] == {"policy": "goodput", "max_batch": 8, "delay_ms": 0.0}
    assert (first["replicas"], first["make_current"]) == ({"min": 1, "max": 2}, True)
    assert (second["version"], second["replicas"], second["make_current"]) == ("2", 1, False)
    # It is taken as it is told.
    made = shared.call("POST", "/models/again/versions", {**first, "version": "3"})
    assert made["version"] == "3"
    third = shared.call("GET", "/models/again/deployments")["3"]
    assert third == {**first, "version": "3"}
    shared.call("GET", "/models/absent/deployments", status=404)


def test_older_versions_sleep_and_are_woken_by_a_rollback(own: Own) -> None:
    for answer in ("two", "three"):
        own.deploy(answering(answer))
    until(lambda: own.version("1")["replicas"] == [])
    assert own.version("1")["state"] == "sleeping"

    model = own.call("POST", "/rollback", {})
    assert (model["current"], model["previous"]) == ("2", "3")
    assert own.output() == "two"
    model = own.call("POST", "/rollback", {"version": "1"})
    assert (model["current"], model["previous"]) == ("1", "2")
    assert own.output() == "one"
    until(lambda: own.version("3")["replicas"] == [])
    assert own.version("3")["state"] == "sleeping"


def test_a_rollback_to_the_current_version_cancels_a_deployment_under_way(own: Own, tmp_path: Path) -> None:
    may_start = tmp_path / "may-start"
    code = f"import os, time\nwhile not os.path.exists({str(may_start)!r}): time.sleep(0.01)\n" + answering("two")
    own.deploy(code, wait=False)
    until(lambda: own.version("2")["replicas"])
    assert own.call("POST", "/rollback", {"version": "1"})["current"] == "1"
    assert own.server.decided(own.name, "2")["state"] == "sleeping"
    may_start.touch()
    until(lambda: own.version("2")["replicas"] == [])
    assert own.current == "1" and own.output() == "one"
    # It is there nevertheless, for whoever wants it after all.
    assert own.call("POST", "/rollback", {"version": "2"})["current"] == "2"


@pytest.mark.long
def test_a_rollback_to_what_no_longer_starts_fails_and_changes_nothing(own: Own, tmp_path: Path) -> None:
    marker = tmp_path / "broken"
    code = f"import os\nassert not os.path.exists({str(marker)!r}), 'it is broken'\n" + answering("zero")
    own.deploy(code)
    for answer in ("one", "two"):
        own.deploy(answering(answer))
    until(lambda: own.version("2")["replicas"] == [])
    marker.touch()
    error = own.call("POST", "/rollback", {"version": "2"}, status=502)
    assert error["error"] == "container_failed" and "it is broken" in error["cause"]
    assert own.current == "4"
    marker.unlink()
    assert own.call("POST", "/rollback", {"version": "2"})["current"] == "2"


def test_a_model_that_never_came_up_has_nothing_to_return_to(shared: Server) -> None:
    assert shared.deploy("never", "raise RuntimeError('no weights')", input_type="float64[2]")["state"] == "failed"
    refused = shared.call("POST", "/models/never/rollback", {}, status=409)["cause"]
    assert "no version to return to: no sound version was current; version 1 is failed; name one" in refused


def test_a_deployment_that_is_not_to_be_current_runs_beside_it(own: Own) -> None:
    beside = own.deploy(answering("two"), make_current=False)
    assert beside["state"] == "ready" and not beside["current"]
    assert own.output() == "one"
    assert own.output(version="2") == "two"
    own.server.call("PUT", f"/applications/{own.name}/links/{own.name}", {"version": "2"})
    assert own.output() == "two"
    assert own.call("DELETE", "/versions/2", status=409)["error"] == "conflict"


class Load(threading.Thread):
    """Queries one after another, each answer counted."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.answers: list[Any] = []
        self.enough = False

    def run(self) -> None:
        while not self.enough:
            self.answers.append(self.server.predict("app", [len(self.answers), 0]))

    def sees(self, output: str) -> bool:
        return bool(self.answers) and self.answers[-1].get("output") == output

    def finish(self) -> None:
        self.enough = True
        self.join()
        bad = [answer for answer in self.answers if "error" in answer or answer["default"]]
        assert bad == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_query_is_lost_while_versions_change_and_scale_under_load(server: Server, workers: str) -> None:
    server.options = ("--workers", workers)
    with_application(server, replicas=2, cache=False)
    loads = [Load(server) for _ in range(4)]
    for load in loads:
        load.start()

    def all_see(output: str) -> None:
        until(lambda: all(load.sees(output) for load in loads))

    try:
        all_see("one")
        server.deploy("m", answering("two"), input_type="float64[2]", replicas=2, cache=False)
        all_see("two")
        server.deploy("m", answering("three"), input_type="float64[2]", cache=False)
        all_see("three")
        server.call("POST", "/models/m/rollback", {})
        all_see("two")
        server.call("POST", "/models/m/rollback", {"version": "1"})
        server.call("POST", "/models/m/scale", {"replicas": 1})
        until(lambda: len(server.call("GET", "/models/m/versions/1")["replicas"]) == 1)
        all_see("one")
    finally:
        for load in loads:
            load.finish()


def test_scaling_up_and_down(own: Own) -> None:
    own.call("POST", "/scale", {"replicas": 3})
    until(lambda: len(own.ready_pids) == 3)
    own.call("POST", "/scale", {"replicas": 1})
    mine = f"{own.name}@"
    until(lambda: sum(name.startswith(mine) for name in processes_of(own.server.home).values()) == 1)
    assert own.output() == "one"
    assert own.call("POST", "/scale", {"replicas": -1}, status=400)["error"] == "invalid_argument"


@pytest.mark.long
def test_a_replica_range_begins_at_those_in_use_and_outlives_a_restart(server: Server) -> None:
    with_application(server, replicas={"min": 1, "max": 3})
    told = server.call("POST", "/models/m/scale", {"replicas": {"min": 2, "max": 4}})
    assert (told["replicas_wanted"], told["scaling"]) == (2, {"min": 2, "max": 4})
    until(lambda: len(server.ready_pids("m")) == 2)
    second = server.deploy("m", answering("two"), input_type="float64[2]", replicas={"min": 1, "max": 4})
    assert (second["state"], second["replicas_wanted"]) == ("ready", 2)
    server.kill()
    server.start()
    looked = until(lambda: server.call("GET", "/models/m/versions/2")["scaling_reason"])
    assert "expected" in looked or "no load" in looked
    assert server.call("GET", "/models/m/versions/2")["scaling"] == {"min": 1, "max": 4}
    until(lambda: len(server.ready_pids("m")) == 4)
    fixed = server.call("POST", "/models/m/scale", {"replicas": 1})
    assert (fixed["scaling"], fixed["scaling_reason"]) == (None, None)


def dies_after(gate: Path) -> str:
    """The beginning of a model that ends its process when there is such a file."""
    code = f"import os, threading, time\ndef die():\n    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    return code + "    os._exit(7)\nthreading.Thread(target=die, daemon=True).start()\n"


def test_a_crash_loop_is_visible_and_the_rest_unharmed(own: Own, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    own.deploy(dies_after(gate) + answering("x"))
    gate.touch()

    def in_a_crash_loop() -> Any:
        replicas = [one for one in own.server.call("GET", "/replicas") if one["model"] == own.name]
        return next((one for one in replicas if one["state"] == "crash_loop"), None)

    replica = until(in_a_crash_loop)
    # The fourth; a busy machine may have looked later.
    assert replica["restarts"] >= 4 and "exited with code 7" in replica["last_error"]
    version = own.version("2")
    assert (version["state"], version["condition"]) == ("ready", "crash_loop")
    assert own.server.predict("app", [1, 2])["output"] == "one"


@pytest.mark.long
def test_no_rollback_returns_to_a_version_whose_replicas_did_not_stay_up(own: Own, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    own.deploy(dies_after(gate) + answering("two"))
    gate.touch()
    until(lambda: own.version("2")["condition"] == "crash_loop")
    model = own.call("POST", "/rollback", {})
    assert (model["current"], model["previous"]) == ("1", None)
    assert "did not stay up" in model["versions"][1]["stopped"]
    refused = own.call("POST", "/rollback", {}, status=409)["cause"]
    assert "did not stay up" in refused and "exited with code 7" in refused


@pytest.mark.long
def test_a_version_of_which_some_replicas_crash_is_degraded_and_a_problem(own: Own, tmp_path: Path) -> None:
    first = tmp_path / "first"
    code = f"import os\ntry: os.close(os.open({str(first)!r}, os.O_CREAT | os.O_EXCL))\nexcept OSError: os._exit(7)\n"
    own.deploy(code + answering("two"))
    own.call("POST", "/scale", {"replicas": 2})
    until(lambda: own.version("2")["condition"] == "degraded")
    problem = f"{own.name}:2: 1 of its 2 replicas crash each time they start"
    until(lambda: any(problem in one for one in own.server.call("GET", "/status")["problems"]))
    assert own.server.call("GET", "/status")["ready"]


@pytest.mark.parametrize(
    ("state", "replicas", "condition"),
    [
        ("ready", ["ready", "ready"], "ready"),
        ("ready", ["ready", "starting"], "ready"),
        ("ready", ["ready", "stopping"], "ready"),
        ("ready", ["ready", "crash_loop"], "degraded"),
        ("ready", ["backing_off", "ready"], "degraded"),
        ("ready", ["crash_loop"], "crash_loop"),
        ("ready", ["starting", "backing_off", "crash_loop"], "crash_loop"),
        ("ready", ["starting", "backing_off"], "backing_off"),
        ("ready", ["starting"], "starting"),
        ("ready", [], "starting"),
        ("starting", ["ready", "starting"], "starting"),
        ("starting", ["crash_loop"], "crash_loop"),
        ("asleep", [], "asleep"),
        ("sleeping", ["stopping"], "sleeping"),
        ("failed", ["stopping"], "failed"),
    ],
)
def test_a_versions_condition_is_what_its_replicas_leave_of_its_state(
    state: ShownState, replicas: list[ReplicaState], condition: str
) -> None:
    assert condition_of(state, replicas) == condition


def test_deleting(server: Server) -> None:
    with_application(server)
    server.deploy("m", answering("two"), input_type="float64[2]")
    assert server.call("DELETE", "/models/m/versions/2", status=409)["error"] == "conflict"
    assert server.call("DELETE", "/models/m", status=409)["error"] == "conflict"
    server.call("DELETE", "/models/m/versions/1")
    assert server.call("GET", "/models/m")["previous"] is None
    assert server.call("GET", "/models/m/versions/1", status=404)["error"] == "not_found"
    server.call("DELETE", "/applications/app")
    assert server.predict("app", [1, 2])["error"] == "not_found"
    server.call("DELETE", "/models/m")
    assert server.call("GET", "/models") == []
    assert sorted(processes_of(server.home).values()) == ["worker-0"]
    assert list((server.home / "artifacts").iterdir()) == []
    assert [path.name for path in (server.home / "logs").glob("m@*")] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"replicas": 0}, "invalid_argument"),
        ({"replicas": 1000}, "invalid_argument"),
        ({"replicas": {"min": 0, "max": 0}}, "invalid_argument"),
        ({"replicas": {"min": 3, "max": 2}}, "invalid_argument"),
        ({"replicas": {"min": 1, "max": 1000}}, "invalid_argument"),
        ({"target": "no-colon"}, "invalid_argument"),
        ({"loader": "file", "target": "../../registry.sqlite3"}, "invalid_argument"),
        ({"data": "no/such/file"}, "invalid_argument"),
        ({"artifact": "ab" * 32}, "not_found"),
        ({"input_type": "complex"}, "invalid_argument"),
        ({"version": "1"}, "conflict"),
        ({"version": "a/b"}, "invalid_argument"),
        ({"memory_bytes": 10}, "invalid_argument"),
        ({"cpus": 0}, "invalid_argument"),
        ({"gpus": "0"}, "invalid_argument"),
        ({"resources": {"ssd": 1}}, "invalid_argument"),
        ({"resources": ["ssd"]}, "malformed_request"),
        ({"placement": "pack"}, "invalid_argument"),
        ({"framework": "onnx"}, "invalid_argument"),
        ({"framework": "torch_state"}, "invalid_argument"),
        ({"loader": "file", "target": "code/my_model.py", "framework": "torch_state"}, "invalid_argument"),
        ({"loader": "file", "target": "code/my_model.py", "framework": "fortran"}, "malformed_request"),
        ({"loader": "binary", "target": "code/my_model.py", "output": "labels"}, "invalid_argument"),
        ({"output": "a,,b"}, "invalid_argument"),
        ({"batching": {"max_batch": 0}}, "invalid_argument"),
        ({"start_timeout_s": 0}, "invalid_argument"),
        ({"description": "two\nlines"}, "invalid_argument"),
    ],
)
def test_deployments_that_cannot_be(shared: Server, fields: dict[str, Any], code: str) -> None:
    body = {"artifact": shared.upload(answering("x")), "loader": "import", "target": "my_model:predict", **fields}
    status = {"not_found": 404, "conflict": 409}.get(code, 400)
    assert shared.call("POST", "/models/m/versions", body, status=status)["error"] == code
