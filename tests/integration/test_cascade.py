"""Cascades through real workers and containers: real models on real digits, and a dear model that is too slow."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from clipper.control.snapshot import ApplicationSnapshot
from clipper.settings.application import Link, Selection
from tests.serving import Serving, model, serving, version

pytestmark = pytest.mark.long

COSTS = {"cheap": 1.0, "dear": 20.0}
# The dear model has to save one error in 50 queries that ask it.
COST_WEIGHT = 0.001
LINKS = tuple(Link(name, cost=cost) for name, cost in COSTS.items())

PROBABILITIES = """
    import joblib, numpy as np
    model = joblib.load({path!r})
    def predict(inputs):
        return model.predict_proba(np.array(inputs))
"""
SLOW = "import time\ndef predict(inputs):\n    time.sleep(3.0)\n    return [[0.0, 1.0]] * len(inputs)\n"
UNSURE = "def predict(inputs):\n    return [[0.6, 0.4]] * len(inputs)\n"

Digits = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """Of an application on all of the digits: means, and the share that the dear model was asked for."""

    loss: float
    cost: float
    latency_ms: float
    went_on: float


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digits]:
    """A logistic regression that has seen little, a forest that has seen more, and digits that neither has."""
    folder = tmp_path_factory.mktemp("models")
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order] / 16, labels[order]
    joblib.dump(LogisticRegression(max_iter=300).fit(pixels[:150], labels[:150]), folder / "cheap.joblib")
    forest = RandomForestClassifier(40, random_state=0).fit(pixels[:1100], labels[:1100])
    joblib.dump(forest, folder / "dear.joblib")
    return folder, (pixels[-160:], labels[-160:])


@pytest.fixture(scope="module")
def system(held_out: tuple[Path, Digits]) -> Iterator[Serving]:
    folder, _ = held_out
    with serving() as system:
        system.start_worker()
        codes = {name: dedent(PROBABILITIES).format(path=str(folder / f"{name}.joblib")) for name in COSTS}
        codes |= {"slow": SLOW, "unsure": UNSURE}
        containers = {name: system.start_container(code, name) for name, code in codes.items()}
        fixed = Selection("cascade", {"threshold": 0.8}, half_life=None, cost_weight=COST_WEIGHT)
        applications = [
            ApplicationSnapshot("both", "float64[64]", 20_000.0, selection=fixed, links=LINKS, id="i-both"),
            ApplicationSnapshot("cheap", "float64[64]", 20_000.0, links=LINKS[:1], id="i-cheap"),
            ApplicationSnapshot("dear", "float64[64]", 20_000.0, links=LINKS[1:], id="i-dear"),
            ApplicationSnapshot(
                "hurried",
                "float64[64]",
                1000.0,
                default_output='"default"',
                selection=fixed,
                links=(Link("unsure"), Link("slow")),
                id="i-hurried",
            ),
        ]
        versions = [model(version(each, input_type="float64[64]"), name=name) for name, each in containers.items()]
        assert system.apply(applications, versions).unlinked == {}
        yield system


def measure(system: Serving, application: str, digits: Digits) -> Measured:
    losses, took_s = [], []
    with system.worker.connect() as client:
        for pixels, label in zip(*digits):
            began_s = time.perf_counter()
            answer = client.ask(f"/{application}/predict", {"input": pixels.tolist()}).json
            took_s.append(time.perf_counter() - began_s)
            assert answer["default"] is False, answer
            losses.append(float(np.argmax(answer["output"]) != label))
            told = client.ask(f"/{application}/observe", {"query_id": answer["query_id"], "label": int(label)})
            assert told.status == 200, told.json
    statistics = system.worker.application(application)
    assert statistics.selection is not None
    models = statistics.selection.models
    cost = sum(each.selected * COSTS[name] for name, each in models.items()) / statistics.queries
    asked_dear = models["dear"].selected if "dear" in models else 0
    return Measured(float(np.mean(losses)), cost, float(np.mean(took_s)) * 1000, asked_dear / statistics.queries)


def test_it_errs_as_little_as_the_dear_model_at_a_part_of_its_cost(
    system: Serving, held_out: tuple[Path, Digits]
) -> None:
    _, digits = held_out
    found = {name: measure(system, name, digits) for name in ("cheap", "dear", "both")}
    print("\n".join(f"{name}: {each}" for name, each in found.items()))
    cheap, dear, both = found["cheap"], found["dear"], found["both"]
    assert cheap.loss > dear.loss + 0.03, "else there is nothing to gain"
    assert both.loss <= dear.loss + 0.01
    assert both.cost < 0.8 * dear.cost
    assert both.cost == pytest.approx(1 + 20 * both.went_on)


def test_beside_a_slow_dear_model_each_query_has_the_cheap_answer_in_time(system: Serving) -> None:
    with system.worker.connect() as client:
        rows = [[float(number)] * 64 for number in range(60)]
        answers = [client.ask("/hurried/predict", {"input": row}).json for row in rows]
    statistics = system.worker.application("hurried")
    # On a busy machine the cheap one may be late, too.
    late = [answer for answer in answers if answer.get("default_reason") == "timeout"]
    assert [answer["output"] for answer in answers if answer not in late] == [[0.6, 0.4]] * (60 - len(late))
    assert len(late) < 10 and statistics.defaults == ({"timeout": len(late)} if late else {})
    assert statistics.errors == {}
    assert statistics.selection is not None
    # The first waits for it, and then one now and then; no other begins what it could not end.
    assert 1 <= statistics.selection.models["slow"].selected < 10
