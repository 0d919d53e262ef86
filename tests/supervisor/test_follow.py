"""``clipper deploy --follow``: what an address means moves, while queries come."""

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.cli.commands import CLIPPER
from tests.supervisor.live_server import APP, Own, Server
from tests.waiting import until

# The guardrail's promise: a worse version is stopped within so many more errors. While the supervisor decides, which
# takes as long as the machine is slow, a worker asks it with 2 % of the queries.
MOST_ERRORS, MOST_MEANWHILE = 50, 0.05


def model(answer: float, *, is_broken: bool = False) -> bytes:
    inputs = np.zeros((4, 2))
    made = Pipeline(
        [("as_is", FunctionTransformer()), ("constant", DummyRegressor(strategy="constant", constant=answer))]
    )
    made.fit(inputs, np.full(4, answer))
    if is_broken:
        made.steps[0][1].func = np.linalg.inv  # of a batch, which is no square matrix
    file = io.BytesIO()
    joblib.dump(made, file)
    return file.getvalue()


class Store(ThreadingHTTPServer):
    """Has one file, whose content can be set."""

    daemon_threads = True

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            assert isinstance(self.server, Store)
            number, content = self.server.content
            self.send_response(200 if content else 503)
            self.send_header("ETag", f'"{number}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.content = (0, model(1.0))

    def set(self, content: bytes) -> None:
        self.content = (self.content[0] + 1, content)


@pytest.fixture
def store() -> Iterator[Store]:
    server = Store()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Asking:
    """Asks an application without end, from a thread of its own."""

    def __init__(self, server: Server, application: str) -> None:
        self.answers: list[Any] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(server, application))
        self._thread.start()

    def _ask(self, server: Server, application: str) -> None:
        while not self._is_over.is_set():
            self.answers.append(server.predict(application, [float(len(self.answers)), 0.0]))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.mark.long
def test_an_address_that_moves_is_deployed_and_watched(shared: Server, own: Own, store: Store, tmp_path: Path) -> None:
    name = f"{own.name}-followed"
    address = f"http://127.0.0.1:{store.server_address[1]}/m.joblib"
    environment = {**os.environ, "CLIPPER_HOME": str(shared.home), "CLIPPER_CACHE": str(tmp_path)}
    command = [*CLIPPER, "deploy", name, address, "--follow", "--every", "1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def current() -> str | None:
        found = shared.ask("GET", f"/models/{name}")
        return found.json()["current"] if found.is_success else None

    def ended() -> object:
        return process.poll() is not None and process.communicate()

    try:
        until(lambda: current() == "1", failed=ended)
        shared.call("POST", "/applications", {**APP, "name": name, "links": [{"model": name}]})
        asking = Asking(shared, name)
        try:
            until(lambda: len(asking.answers) > 20)
            store.set(model(2.0))
            until(lambda: current() == "2" and asking.answers[-1].get("output") == 2.0, failed=ended)
            store.set(b"")  # it is down, which costs nothing
            asked = len(asking.answers)
            until(lambda: len(asking.answers) > asked + 20)
            lost = [answer for answer in asking.answers if "error" in answer or answer["default"]]
            assert lost == []
            store.set(model(3.0, is_broken=True))
            until(
                lambda: shared.ask("GET", f"/models/{name}/versions/3").json().get("stopped") is not None, failed=ended
            )
            # A change is answered once the worker has it, and so the one before it.
            shared.call("PATCH", f"/applications/{name}", {"slo_ms": 19_000})
            until(lambda: asking.answers[-1].get("output") == 2.0)
            errors = [answer for answer in asking.answers if "error" in answer]
            assert 0 < len(errors) <= MOST_ERRORS + MOST_MEANWHILE * (len(asking.answers) - asked)
            asked = len(asking.answers)
            until(lambda: len(asking.answers) > asked + 20)
            assert all(answer.get("output") == 2.0 for answer in asking.answers[asked:])
            assert current() == "2"
        finally:
            asking.end()
        events = shared.call("GET", "/events?limit=1000")["events"]
        told = [one["message"] for one in events if one["subject"] == f"model {name}"]
        moved = next(text for text in told if text.startswith("version 2 is deployed"))
        before, after = moved.partition(", after ")[::2]
        assert f"from {address}#sha256=" in before and f"{address}#sha256=" in after and before[-20:] not in after
    finally:
        process.terminate()
        process.communicate()
        shared.call("DELETE", f"/applications/{name}")
        shared.call("DELETE", f"/models/{name}")
