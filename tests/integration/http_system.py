"""A query worker with its models, as HTTP clients of all kinds meet it."""

from collections.abc import Iterator
from contextlib import contextmanager

from clipper.settings.version import Batching
from tests.serving import SUM, Response, Serving, application, model, post, serving, version

# Evaluates for as many seconds as the input says.
SLEEPY = "import time\ndef predict(inputs):\n    time.sleep(inputs[0][0])\n    return [float(x[0]) for x in inputs]\n"
LARGE = "def predict(inputs):\n    return ['x' * 100_000] * len(inputs)\n"

ONE = post("/sum/predict", {"input": [1, 2, 3]})


@contextmanager
def http_system() -> Iterator[Serving]:
    """Its applications are sum, sleepy and large."""
    with serving() as system:
        system.start_worker()
        total, sleepy = system.start_container(SUM), system.start_container(SLEEPY, "sleepy")
        large = system.start_container(LARGE, "large")
        applications = [application("sum"), application("sleepy", "sleepy"), application("large", "large")]
        models = [
            model(version(total)),
            model(version(sleepy, batching=Batching("none")), name="sleepy"),
            model(version(large, cache=True), name="large"),
        ]
        assert system.apply(applications, models).unlinked == {}
        yield system


def ask_once(system: Serving) -> Response:
    with system.worker.connect() as client:
        client.send(ONE)
        return client.read()


def assert_error(response: Response, status: int, code: str) -> None:
    assert (response.status, response.json["error"]) == (status, code)
    assert set(response.json) == {"error", "cause"}
    assert response.headers["content-type"] == "application/json"
    assert response.json["cause"]
