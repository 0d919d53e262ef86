"""Policies learn from users' answers, through real workers and containers: who is late, and which version answers."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from clipper.control.snapshot import VersionSnapshot
from clipper.settings.application import Selection
from clipper.settings.version import Batching
from tests.serving import Client, Serving, application, model, serving

# The right answer to an input is the whole number below it; where its fraction is below a model's share, it errs.
MODEL = """
import time
def predict(inputs):
    time.sleep({takes_s})
    return [int(row[0]) if row[0] % 1 >= {errs} else -1 for row in inputs]
"""
# It asserts on who is in time.
pytestmark = pytest.mark.alone

BANDITS = ["epsilon_greedy", "exp3", "thompson", "ucb1"]
QUERIES = 300
# Queries that the worker keeps for feedback.
WINDOW = 400


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    """``slow`` is never within the SLO and hardly ever wrong, ``fast`` the other way round."""
    with serving() as system:
        system.start_worker(feedback_queries=WINDOW)
        slow = system.start_container(MODEL.format(takes_s=0.25, errs=0.02), "slow")
        fast = system.start_container(MODEL.format(takes_s=0, errs=0.2), "fast")
        versions = [
            model(VersionSnapshot("1", "doubles", Batching(), cache=False, replicas=(each.address,)), name=name)
            for name, each in (("slow", slow), ("fast", fast))
        ]
        applications = [
            application(
                f"{policy.replace('_', '-')}-{told}",
                "slow",
                "fast",
                slo_ms=100.0,
                default_output="-2",
                selection=Selection(policy),
                id=f"id-of-{policy}-{told}",
            )
            for policy in BANDITS
            for told in ("all", "answers")
        ]
        applications.append(application("alone", "fast", default_output="-2", id="id-of-alone"))
        assert system.apply(applications, versions).unlinked == {}
        yield system


def converge(client: Client, name: str, *, is_told_of_defaults: bool) -> list[dict[str, Any]]:
    chance = random.Random(1)
    answers = []
    for _ in range(QUERIES):
        value = chance.random() * 1000
        answer = client.ask(f"/{name}/predict", {"input": [value]}).json
        answers.append(answer)
        if is_told_of_defaults or not answer["default"]:
            observed = client.ask(f"/{name}/observe", {"query_id": answer["query_id"], "label": int(value)})
            assert observed.status == 200, observed.json
    return answers


@pytest.mark.parametrize("told", ["all", "answers"])
@pytest.mark.parametrize("policy", BANDITS)
def test_a_model_that_is_right_but_late_is_left(system: Serving, policy: str, told: str) -> None:
    name = f"{policy.replace('_', '-')}-{told}"
    with system.worker.connect() as client:
        answers = converge(client, name, is_told_of_defaults=told == "all")
    reasons = Counter(answer.get("default_explanation", "answered") for answer in answers[-100:])
    assert reasons["answered"] >= 65, reasons
    selection = system.worker.application(name).selection
    assert selection is not None
    if told == "all":
        # That it has no time is known from its times, and not learned as a loss of its answers.
        slow = selection.models.get("slow")
        assert slow is None or (slow.selected <= 0.1 * QUERIES and slow.loss == 0)
        assert selection.answer_loss_by_reason["wrong"] > 0


def test_the_window_of_feedback_is_so_many_queries_and_says_what_it_lacks(system: Serving) -> None:
    with system.worker.connect() as client:
        ids = [client.ask("/alone/predict", {"input": [number / 7]}).json["query_id"] for number in range(WINDOW + 50)]
        lacking = client.ask("/alone/observe", {"query_id": ids[0], "label": 0})
        never = client.ask("/alone/observe", {"query_id": ids[-1] + 1000, "label": 0})
        assert (lacking.status, never.status) == (404, 404)
        assert f"this worker keeps {WINDOW} for feedback" in lacking.json["cause"]
        assert "never asked" in never.json["cause"]
        assert client.ask("/alone/observe", {"query_id": ids[-1], "label": 0}).status == 200
    window = system.worker.statistics().feedback_window
    assert (window.queries, window.max_queries) == (WINDOW, WINDOW) and window.evicted >= 50 and window.age_s > 0
    selection = system.worker.application("alone").selection
    assert selection is not None and selection.feedback == {"evicted": 1, "unknown": 1, "joined": 1}
