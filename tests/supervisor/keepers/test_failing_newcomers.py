"""New versions that fail or are late, through a real server: they are stopped without any feedback, and said so."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clipper.learning.policies.trials import WARM_UP_S
from tests.supervisor.live_server import Server, answering
from tests.supervisor.three_models import ROW
from tests.waiting import until

pytestmark = pytest.mark.long

ONES, TWOS = (answering(value) for value in (1, 2))
RAISES = "def predict(inputs):\n    raise ValueError('no weights')\n"
APP = {"name": "app", "slo_ms": 20_000, "links": [{"model": "m"}], "default_output": 0}
# A test stops a version that always fails after 27 queries, and after 44 at most in 100 runs. While the supervisor
# decides, which takes as long as the machine is slow, a worker asks a watched version with 2 % of the queries, and a
# ramped one with its share: of that, a test waits until the supervisor has counted what was asked.
MOST_FAILURES, MOST_MEANWHILE = 60, 0.05
# Some steps of the supervisor's sampler.
COUNTED_S = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("trials") / "home")
    try:
        server.start()
        yield server
    finally:
        server.clean_up()


@pytest.fixture
def live(server: Server) -> Iterator[Server]:
    """Version 1 of m answers 1."""
    deploy(server, ONES)
    yield server
    for each in server.call("GET", "/applications"):
        server.call("DELETE", f"/applications/{each['name']}")
    server.call("DELETE", "/models/m")


def deploy(server: Server, code: str) -> None:
    made = server.deploy("m", code, wait=False, input_type="float64[2]")
    assert server.decided("m", made["version"])["state"] == "ready"


def model(server: Server) -> Any:
    return server.call("GET", "/models/m")


def ask_until_stopped(server: Server) -> Counter[int]:
    """Ask without feedback until version 1 is current again; return the answers, 0 for the default."""
    answers: Counter[int] = Counter()
    asked_s: list[float] = []

    def is_decided() -> bool:
        # The first queries are not counted if a former application had the name.
        asked = sum(at_s > time.monotonic() - COUNTED_S for at_s in asked_s)
        shown = server.call("GET", "/applications/app")
        return not shown["newcomers"] or shown["last_minute"]["queries"] >= asked

    def is_stopped() -> bool:
        for _ in range(10):
            asked_s.append(time.monotonic())
            answers[server.predict("app", ROW)["output"]] += 1
        until(is_decided)
        return bool(model(server)["current"] == "1")

    until(is_stopped)
    return answers


@pytest.mark.parametrize(
    "policy",
    ["single", "weighted", "thompson", "exp4", {"name": "ensemble", "parameters": {"weighting": "equal"}}],
)
def test_a_version_that_raises_is_stopped_without_feedback(live: Server, policy: Any) -> None:
    live.call("POST", "/applications", {**APP, "policy": policy, "ramp": 0.5})
    deploy(live, RAISES)
    assert model(live)["current"] == "2"
    answers = ask_until_stopped(live)
    assert answers[0] <= MOST_FAILURES + MOST_MEANWHILE * answers.total(), answers
    shown = model(live)
    assert shown["previous"] is None
    why = shown["versions"][1]["stopped"]
    assert why.startswith("application 'app': ") and "queries to it failed or were late" in why and "no weights" in why
    assert any("m:2 was stopped" in one and "no weights" in one for one in live.call("GET", "/status")["problems"])
    (event,) = [one for one in live.call("GET", "/events?kind=guardrail")["events"] if "m:2" in one["message"]][-1:]
    assert "no weights" in event["message"]
    until(lambda: {live.predict("app", ROW)["output"] for _ in range(5)} == {1})
    live.call("POST", "/models/m/rollback", {}, status=409)


FIRST = """
from clipper.policies import Choice, Policy

class First(Policy):
    def select(self, models, totals, query, random):
        return Choice(models[:1], (1.0,))
"""


@pytest.mark.parametrize("policy", ["thompson", "best_arm", "exp4", "cascade", "my_model:First"])
def test_without_a_ramp_a_version_that_raises_is_stopped_as_well(live: Server, policy: str) -> None:
    code = {"code": live.upload(FIRST)} if ":" in policy else {}
    live.call("POST", "/applications", {**APP, **code, "policy": policy, "ramp": None})
    deploy(live, RAISES)
    shown = live.call("GET", "/applications/app")
    assert (shown["newcomers"], [one["version"] for one in shown["watched"]]) == ([], ["2"])
    assert ask_until_stopped(live)[0] <= MOST_FAILURES
    assert "queries to it failed or were late" in model(live)["versions"][1]["stopped"]
    until(lambda: {live.predict("app", ROW)["output"] for _ in range(5)} == {1})


def test_a_version_that_is_late_is_stopped(live: Server) -> None:
    live.call("POST", "/applications", {**APP, "slo_ms": 1000})
    deploy(live, "import time\ndef predict(inputs):\n    time.sleep(20)\n    return [2] * len(inputs)\n")
    with ThreadPoolExecutor(8) as threads:

        def is_stopped() -> bool:
            list(threads.map(lambda _: live.predict("app", ROW), range(16)))
            return bool(model(live)["current"] == "1")

        until(is_stopped)
    assert "were late" in model(live)["versions"][1]["stopped"]


def test_feedback_on_late_answers_is_no_harm_while_a_version_warms_up(live: Server) -> None:
    """Its ten seconds may pass on a slow machine, so the test asks another new version until they have not."""
    slow = live.home.parent / "slow"
    code = "import os, time\ndef predict(inputs):\n    while os.path.exists({!r}): time.sleep(0.01)\n"
    code += "    return [2] * len(inputs)\n"
    live.call("POST", "/applications", {**APP, "slo_ms": 250, "policy": "thompson", "ramp": 0.5})

    def ask(_: int) -> bool:
        answer = live.predict("app", ROW)
        # The newcomer's answers are right, and the default is wrong.
        live.observe("app", query_id=answer["query_id"], label=1 if answer["default"] else answer["output"])
        return bool(answer["default"])

    def newcomer() -> Any:
        (shown,) = live.call("GET", "/applications/app")["newcomers"]
        return shown

    while True:
        deploy(live, code.format(str(slow)))
        slow.touch()
        began_s = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            late = sum(threads.map(ask, range(60)))
        was_warming = time.monotonic() - began_s < WARM_UP_S
        slow.unlink()
        if was_warming and late > 10:
            break
        live.call("POST", "/models/m/rollback", {"version": "1"})
    until(lambda: newcomer()["rest_feedback"] >= 60 - late)
    assert (newcomer()["stopped"], newcomer()["feedback"]) == (None, 0)
    # Once it answers it gets through, since nothing was held against it.
    until(lambda: [ask(0) for _ in range(20)] and live.call("GET", "/applications/app")["newcomers"] == [])


def test_a_version_that_fails_as_the_one_before_goes_on(live: Server) -> None:
    down = live.home.parent / "down"
    backend = "import os\ndef predict(inputs):\n    if os.path.exists({!r}): raise OSError('the backend is down')\n"
    backend = backend.format(str(down)) + "    return [{}] * len(inputs)\n"
    live.call("POST", "/applications", APP)
    deploy(live, backend.format(2))
    live.call("POST", "/models/m/rollback", {"version": "1"})
    live.call("POST", "/models/m/rollback", {"version": "2"})  # an operator's wish: it is not watched
    deploy(live, backend.format(3))
    down.touch()
    assert {live.predict("app", ROW)["output"] for _ in range(120)} == {0}
    trial = live.call("GET", "/applications/app")["watched"]
    # A slow supervisor may trust it at its first look.
    until(lambda: all(one["compared"] > 30 for one in live.call("GET", "/applications/app")["watched"]))
    down.unlink()
    until(lambda: live.predict("app", ROW)["output"] == 3)
    assert model(live)["current"] == "3", trial


def test_a_version_that_answers_is_current_at_once_and_watched_a_while(live: Server) -> None:
    live.call("POST", "/applications", APP)
    deploy(live, TWOS)
    assert {live.predict("app", ROW)["output"] for _ in range(30)} == {2}
    assert (model(live)["current"], model(live)["previous"]) == ("2", "1")
    (watched,) = live.call("GET", "/applications/app")["watched"]
    assert (watched["model"], watched["version"], watched["before"]) == ("m", "2", "1")

    def is_trusted() -> bool:
        """Answers of its first seconds do not end its watch."""
        assert {live.predict("app", ROW)["output"] for _ in range(20)} == {2}
        return bool(live.call("GET", "/applications/app")["watched"] == [])

    until(is_trusted)
    assert live.call("GET", "/applications/app")["newcomers"] == []
    assert {live.predict("app", ROW)["output"] for _ in range(5)} == {2}


def test_an_operators_choice_is_not_watched(live: Server) -> None:
    live.call("POST", "/applications", APP)
    deploy(live, RAISES)
    ask_until_stopped(live)
    shown = live.call("POST", "/models/m/rollback", {"version": "2", "allow_stopped": True})
    assert (shown["current"], shown["previous"]) == ("2", "1")
    assert {live.predict("app", ROW)["output"] for _ in range(80)} == {0}
    assert live.call("GET", "/applications/app")["watched"] == [] and model(live)["current"] == "2"


def test_without_a_guardrail_no_version_is_stopped(live: Server) -> None:
    live.call("POST", "/applications", {**APP, "max_loss_increase": None})
    deploy(live, RAISES)
    assert {live.predict("app", ROW)["output"] for _ in range(60)} == {0}
    assert model(live)["current"] == "2"
