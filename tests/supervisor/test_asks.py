"""Models that ask others of their server, through a whole server."""

import itertools
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.supervisor.live_server import Server, answering
from tests.waiting import until

# Asks the application that the first word of a text names with the rest, and tells what comes of that.
RELAY = """
from concurrent.futures import ThreadPoolExecutor
import clipper

def told(name, rows):
    try:
        return clipper.ask(name, rows)
    except Exception as error:
        return f"{error.code}: {error}"

def predict(inputs):
    found = []
    for text in inputs:
        name, _, rest = text.partition(" ")
        if name == "many":
            texts = [f"text {number}" for number in range(10_000)]
            answer = told("upper", texts)
            found.append("all" if answer == [each.upper() for each in texts] else str(answer)[:500])
        elif name == "threads":
            with ThreadPoolExecutor(4) as pool:
                found.append(",".join(pool.map(lambda name: told(name, [rest])[0], ["upper", "lower"] * 2)))
        elif name == "number":
            found.append(str(told("upper", [1.5])))
        elif name == "raise":
            name, _, rest = rest.partition(" ")
            found.append(clipper.ask(name, [rest])[0])
        else:
            answer = told(name, [rest])
            found.append(answer if isinstance(answer, str) else answer[0])
    return found
"""
UPPER = "def predict(inputs): return [text.upper() for text in inputs]\n"
LOWER = "def predict(inputs): return [text.lower() for text in inputs]\n"
WEAK = """
import os, time
def predict(inputs):
    if "die" in inputs:
        os._exit(1)
    for text in inputs:
        if text.startswith("/"):
            open(text + ".asked", "w").close()
            while not os.path.exists(text): time.sleep(0.01)
    return inputs
"""
TEXTS: dict[str, Any] = {"input_type": "string", "output_type": "string"}
SLO_MS = 20_000


def deployed(server: Server, name: str, code: str, **fields: Any) -> None:
    server.deploy(name, code, wait=False, **TEXTS, **fields)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("asks") / "home", "--workers", "1").start()
    try:
        # A sample that asks: who warms a replica up cannot answer, and that is no fault of the model.
        deployed(server, "relay", RELAY, sample=json.dumps("raise upper"), cache=False)
        deployed(server, "again", RELAY, cache=False)
        deployed(server, "upper", UPPER)
        deployed(server, "lower", LOWER)
        deployed(server, "weak", WEAK, sample=json.dumps("fine"), cache=False)
        for name in ("relay", "again", "upper", "lower", "weak"):
            found = server.decided(name, "1")
            assert found["state"] == "ready", found
            server.call("POST", "/applications", {"name": name, "slo_ms": SLO_MS, "links": [{"model": name}]})
        until(lambda: server.predict("relay", "upper a").get("output") == "A")
        yield server
        assert server.stop() == 0
    finally:
        server.clean_up()


def test_chain_of_asks_answers_by_the_deadline(server: Server) -> None:
    assert server.predict("relay", "again upper banana")["output"] == "BANANA"
    assert server.predict("relay", "threads Banana")["output"] == "BANANA,banana,BANANA,banana"
    assert server.predict("relay", "many")["output"] == "all"


def test_circle_is_refused_with_its_models(server: Server) -> None:
    assert server.predict("relay", "relay upper a")["output"] == (
        "conflict: relay: models ask in a circle: relay, which asks relay"
    )
    assert server.predict("relay", "again relay upper a")["output"] == (
        "conflict: relay: models ask in a circle: relay, which asks again, which asks relay"
    )
    assert server.predict("relay", "upper a")["output"] == "A"


def test_ask_without_an_answer_says_why(server: Server) -> None:
    assert server.predict("relay", "nobody a")["output"].startswith("not_found: nobody: the application does not exist")
    assert server.predict("relay", "number")["output"].startswith("wrong_input: upper: its input ")
    died = server.predict("relay", "weak die")["output"]
    assert died.partition(": weak: ")[0] in ("model_error", "no_replica", "timeout"), died
    failed = server.predict("relay", "raise nobody")
    assert (failed["error"], "nobody: the application does not exist" in failed["cause"]) == ("model_error", True)


def test_asked_model_that_changes_goes_and_comes_back(server: Server) -> None:
    own = {"name": "moving", "slo_ms": SLO_MS, "links": [{"model": "moving"}]}
    assert server.deploy("moving", UPPER, **TEXTS)["state"] == "ready"
    server.call("POST", "/applications", own)
    until(lambda: server.predict("relay", "moving a")["output"] == "A")
    assert server.deploy("moving", answering("two"), **TEXTS)["state"] == "ready"
    until(lambda: server.predict("relay", "moving a")["output"] == "two")
    server.call("POST", "/models/moving/scale", {"replicas": 0})
    # Each look asks a text of its own: an answer from before it took effect is in the cache, and stays an answer.
    texts = (f"b{number}" for number in itertools.count())
    until(lambda: server.predict("relay", f"moving {next(texts)}")["output"].startswith("no_replica: moving: "))
    server.call("DELETE", "/applications/moving")
    until(lambda: server.predict("relay", f"moving {next(texts)}")["output"].startswith("not_found: "))


def test_model_that_does_not_catch_it_fails_with_it(server: Server) -> None:
    server.call("POST", "/models/lower/scale", {"replicas": 0})
    # Each look asks a text of its own, which no cache has.
    texts = (f"x{number}" for number in itertools.count())
    failed = until(lambda: (found := server.predict("relay", f"raise lower {next(texts)}")).get("error") and found)
    assert (failed["error"], failed["cause"].startswith("lower: ")) == ("no_replica", True)
    server.call("POST", "/models/lower/scale", {"replicas": 1})
    until(lambda: server.predict("relay", "raise lower Back").get("output") == "back")


def test_pipeline_may_be_asked(server: Server) -> None:
    steps = {"lower": {"application": "lower"}, "upper": {"application": "upper", "input": "lower"}}
    server.call("POST", "/applications", {"name": "both", "slo_ms": SLO_MS, "input_type": "string", "steps": steps})
    until(lambda: server.predict("relay", "both aB")["output"] == "AB")


@pytest.mark.long
def test_hanging_model_and_a_killed_worker_free_the_asker(server: Server, tmp_path: Path) -> None:
    """The model that is asked hangs until the end, so a model that waits for it can only be freed by its ask."""
    gate, asked = tmp_path / "gate", tmp_path / "gate.asked"
    [worker], pids = server.worker_pids, server.ready_pids("relay")
    short = {"name": "short", "slo_ms": 500, "links": [{"model": "relay"}], "default_output": "late"}
    server.call("POST", "/applications", short)
    late = until(lambda: (found := server.predict("short", f"weak {gate}")).get("output") and found)
    # The ask leaves the model time to tell; on a slow machine it has none.
    assert late["output"] == "late" or late["output"].startswith("timeout: weak: ")
    assert server.predict("relay", "upper a")["output"] == "A"
    gate.touch()
    until(lambda: server.predict("relay", "weak fine")["output"] == "fine")
    # Now with minutes to wait, and the worker dies meanwhile.
    gate.unlink()
    asked.unlink(missing_ok=True)  # on a slow machine the ask never came to the model
    server.call("POST", "/applications", {"name": "patient", "slo_ms": 600_000, "links": [{"model": "relay"}]})
    until(lambda: server.predict("patient", "upper a").get("output") == "A")
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(server.predict, "patient", f"weak {gate}")
        until(asked.exists)
        os.kill(worker, signal.SIGKILL)
        assert isinstance(lost.exception(), httpx.TransportError)
    until(lambda: server.worker_pids not in ([], [worker]))
    server.until_ready()
    until(lambda: server.predict("relay", "upper a").get("output") == "A")
    assert server.ready_pids("relay") == pids
    gate.touch()
    until(lambda: server.predict("relay", "weak fine").get("output") == "fine")
