"""Policies and losses of applications: the user's own code, and settings that are refused; on a real server."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.live_server import Server, processes_of
from tests.supervisor.three_models import APP, ROW, learned, teach, with_application, with_models
from tests.waiting import until

STUBBORN = """
from clipper.learning.policies.policy import Choice, Policy

class Stubborn(Policy):
    def __init__(self, model):
        self.model = model

    def select(self, models, totals, query, random):
        if query.context == "bad":
            raise RuntimeError("no idea")
        return Choice((self.model,), (1.0,))

def half(output, label):
    return 0.5
"""


ENDLESS_THREADS = """
import threading, time
threading.stack_size(1 << 16)
while True:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


def answers(server: Server, output: int, application: str = "app") -> bool:
    """A busy machine imports a policy's code for longer than a change waits; queries are told so meanwhile."""
    return bool(server.predict(application, ROW).get("output") == output)


def test_a_policy_and_a_loss_of_ones_own(server: Server) -> None:
    own = {"policy": {"name": "my_model:Stubborn", "parameters": {"model": "three"}}, "loss": "my_model:half"}
    with_models(server)
    digest = server.upload(STUBBORN)
    folder = server.home / "artifacts" / digest
    server.call("POST", "/applications", {**APP, **own, "code": digest, "default_output": 0})
    until(lambda: answers(server, 3))
    teach(server, 3, 4)
    assert learned(server)["models"]["three"]["mean_loss"] == 0.5

    unsure = server.predict("app", ROW, context="bad")
    assert (unsure["output"], unsure["default"], unsure["default_reason"]) == (0, True, "policy_error")
    problem = until(lambda: server.call("GET", "/applications/app")["problem"])
    assert "my_model:Stubborn" in problem and "no idea" in problem
    assert server.predict("app", ROW)["output"] == 3
    # The code is still there when a worker needs it again, although no other use of it is left.
    server.deploy("same", STUBBORN + "def predict(inputs): return [0 for _ in inputs]\n", input_type="float64[2]")
    server.kill_workers()
    until(lambda: answers(server, 3))

    changed = server.call("PATCH", "/applications/app", {"policy": "single", "loss": "zero_one"})
    assert (changed["code"], changed["policy"]) == (None, {"name": "single", "parameters": {}})
    assert server.call("GET", "/applications/app")["problem"] is None
    assert not folder.exists()
    assert learned(server)["models"]["three"]["scored"] > 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For tests that leave nothing behind."""
    server = Server(tmp_path_factory.mktemp("shared") / "home")
    try:
        yield with_application(server)
    finally:
        server.clean_up()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import nothing_such", "No module named 'nothing_such'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(7)", "with status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGALRM)", "within 20 s"),
        ("def own(", "SyntaxError"),
        ("class own: pass", "no select, combine, observe: subclass Policy"),
        ("print('noise'); own = 3", "no class or function 'own'"),
        ("print('x' * 10**7); own = 3", "no class or function 'own'"),
        ("raise RuntimeError('\\ud800')", "RuntimeError"),
        ("own = bytearray(3 << 30)", "MemoryError"),
        # A busy machine takes longer for so many threads than code has.
        pytest.param(ENDLESS_THREADS, "their code had ", marks=pytest.mark.alone),
        ("import os; raise RuntimeError(os.getcwd())", "/run/scratch/selection-check-"),
        ("import os; raise RuntimeError(sorted(os.environ))", "'CLIPPER_PROCESS', "),
        ("import os; raise RuntimeError('SECRET' in os.environ)", "RuntimeError: False"),
    ],
)
def test_code_that_makes_no_policy_is_refused_and_harms_nobody(shared: Server, code: str, cause: str) -> None:
    before = shared.call("GET", "/applications/app")
    digest = shared.upload(code)
    refused = shared.call("PATCH", "/applications/app", {"policy": "my_model:own", "code": digest}, status=400)
    assert refused["error"] == "invalid_argument" and cause in refused["cause"]
    # Which queries came in the last minute depends on when it is asked.
    assert shared.call("GET", "/applications/app") | {"last_minute": None} == before | {"last_minute": None}
    assert shared.predict("app", ROW)["default"] is False


def test_what_a_check_forks_is_gone_with_it(shared: Server) -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)\n"
    change = {"policy": "my_model:own", "code": shared.upload(code)}
    assert "own" in shared.call("PATCH", "/applications/app", change, status=400)["cause"]
    assert [name for name in processes_of(shared.home).values() if "check" in name] == []
    assert list((shared.home / "run" / "scratch").glob("selection-check*")) == []


@pytest.mark.long
def test_code_whose_import_hangs_in_a_worker_costs_its_application_alone(server: Server, tmp_path: Path) -> None:
    with_application(server)
    (worker,) = server.worker_pids
    hangs = f"""
import pathlib, sys, time
from clipper.learning.policies.single import Single
while "clipper.worker.worker" in sys.modules and not pathlib.Path({str(tmp_path / "go")!r}).exists():
    time.sleep(0.01)
class Own(Single):
    pass
"""
    new = {**APP, "name": "hanging", "policy": "my_model:Own", "code": server.upload(hangs)}
    server.call("POST", "/applications", new)
    # Until it has been tried, which takes a busy machine longer than a change waits, it is told to be tried.
    until(lambda: "still being imported" in server.predict("hanging", ROW)["cause"])
    # Further changes do not wait for it, and reach the worker, which is the same.
    server.call("PATCH", "/applications/app", {"slo_ms": 19_000})
    assert server.predict("app", ROW)["default"] is False
    assert server.worker_pids == [worker]
    (tmp_path / "go").touch()
    until(lambda: "output" in server.predict("hanging", ROW))
    assert server.call("GET", "/applications/hanging")["problem"] is None


# Of C, called so that the interpreter's lock is held: no other thread of the process runs any more.
HANGS_IN_C = """
import ctypes, pathlib, sys
from clipper.learning.policies.single import Single
if {when}:
    ctypes.PyDLL(None).sleep(3600)
class Own(Single):
    pass
"""


@pytest.mark.long
def test_an_import_that_comes_to_hang_in_c_holds_up_no_worker(server: Server, tmp_path: Path) -> None:
    with_application(server)
    hang = tmp_path / "hang"
    code = server.upload(HANGS_IN_C.format(when=f"pathlib.Path({str(hang)!r}).exists()"))
    server.call("POST", "/applications", {**APP, "name": "hanging", "policy": "my_model:Own", "code": code})
    until(lambda: answers(server, 1, "hanging"))
    hang.touch()
    (worker,) = server.kill_workers()
    answer = server.predict("hanging", ROW)
    assert answer["error"] == "policy_error" and "still being tried" in answer["cause"]
    # A worker that takes over a second to answer is left out.
    until(lambda: "still being tried" in (server.call("GET", "/applications/hanging")["problem"] or ""))
    # It hangs where it is tried, and nowhere else: others are answered, and the worker hears of changes.
    assert "policy-trial-0-0" in processes_of(server.home).values()
    assert server.predict("app", ROW)["default"] is False
    server.call("PATCH", "/applications/hanging", {"policy": "single"})
    assert server.predict("hanging", ROW)["default"] is False
    assert server.worker_pids == [worker]


@pytest.mark.long
def test_what_a_worker_hung_on_is_left_out_by_the_next(server: Server) -> None:
    with_application(server)
    (first,) = server.worker_pids
    # Where it is tried it does not hang.
    code = server.upload(HANGS_IN_C.format(when="'clipper.worker.worker' in sys.modules"))
    new = {**APP, "name": "hanging", "policy": "my_model:Own", "code": code}
    note = server.home / "run" / "worker-0.importing"
    with ThreadPoolExecutor(1) as pool:
        created = pool.submit(server.call, "POST", "/applications", new)
        until(lambda: note.exists() and note.read_text() != "[]")
        # As the supervisor does it, later.
        os.kill(first, signal.SIGKILL)
        created.result()
    until(lambda: server.worker_pids not in ([], [first]))
    server.until_ready()
    assert server.predict("app", ROW)["default"] is False
    answer = server.predict("hanging", ROW)
    assert answer["error"] == "policy_error" and "is left out" in answer["cause"]
    status = until(lambda: (now := server.call("GET", "/status"))["problems"] and now)
    (problem,) = status["problems"]
    assert problem.startswith("application 'hanging', in worker 0: policy my_model:Own is left out") and status["ready"]
    mended = server.upload(HANGS_IN_C.format(when="False"))
    server.call("PATCH", "/applications/hanging", {"policy": "my_model:Own", "code": mended})
    until(lambda: answers(server, 1, "hanging"))
    assert server.call("GET", "/applications/hanging")["problem"] is None
    # The queries that came before a busy machine had imported it are a problem of their own.
    assert not [text for text in server.call("GET", "/status")["problems"] if "is left out" in text]
    assert note.read_text() == "[]"
    assert server.stop() == 0
    assert not note.exists()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"policy": "exp5"}, "policy 'exp5' is not known: expected single, weighted"),
        ({"policy": {"name": "exp3", "parameters": {"eta": 2}}}, "eta is 2: expected a number above 0 and at most 1"),
        ({"policy": {"name": "exp3", "parameters": {"eta2": 1}}}, "its parameters are eta, gamma"),
        ({"loss": "mean"}, "loss 'mean' is not known"),
        ({"loss": {"name": "absolute", "parameters": {"range": 0}}}, "range is 0: expected a number above 0"),
        ({"half_life": 0}, "half_life is 0: expected a number from 1"),
        ({"prior_weight": -1}, "prior_weight is -1"),
        ({"confidence_threshold": 1.5}, "confidence_threshold is 1.5: expected a number from 0 to 1"),
        ({"feedback_ttl_s": 1e9}, "feedback_ttl_s is 1000000000.0"),
        ({"log_decisions": 1.5}, "log_decisions is 1.5"),
        ({"policy": "own:Policy"}, "comes without its code"),
        ({"policy": {"name": "subprocess:Popen", "parameters": {"args": "true"}}}, "comes without its code"),
        ({"loss": "os:system"}, "comes without its code"),
    ],
)
def test_changes_that_cannot_be(shared: Server, change: dict[str, Any], cause: str) -> None:
    def applications() -> list[dict[str, Any]]:
        """The applications themselves; the outcomes of their queries change by themselves as a minute passes."""
        return [application | {"last_minute": None} for application in shared.call("GET", "/applications")]

    before = applications()
    assert cause in shared.call("PATCH", "/applications/app", change, status=400)["cause"]
    new = {**APP, "name": "new", **change}
    assert cause in shared.call("POST", "/applications", new, status=400)["cause"]
    assert applications() == before


def test_code_that_is_not_there(shared: Server) -> None:
    change = {"policy": "my_model:own", "code": "ab" * 32}
    assert "PUT it" in shared.call("PATCH", "/applications/app", change, status=404)["cause"]
    assert shared.call("GET", "/applications/none/policy", status=404)["error"] == "not_found"
    assert shared.call("GET", f"/applications/app/policy?context={'x' * 1001}", status=400)["error"] == (
        "invalid_argument"
    )
