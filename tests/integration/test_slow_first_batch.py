"""A version whose first batch took nearly all of the SLO goes on being asked."""

from tests.serving import application, model, serving, version
from tests.waiting import until

SLOW_ONCE = """
import time

calls = 0


def predict(inputs):
    global calls
    calls += 1
    if calls == 1:
        time.sleep(0.0975)
    return [float(row.sum()) for row in inputs]
"""


def test_a_version_answers_again_after_one_slow_first_batch() -> None:
    """The worker needs 2 ms of the SLO for itself, so a query as slow as that batch is late."""
    with serving() as system:
        system.start_worker()
        container = system.start_container(SLOW_ONCE)
        system.apply([application(slo_ms=100.0, default_output="0.0")], [model(version(container))])
        with system.worker.connect() as client:
            body = {"input": [1.0, 2.0]}
            client.ask("/app/predict", body)
            until(lambda: client.ask("/app/predict", body).json["output"] == 3.0)
