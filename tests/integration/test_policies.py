"""Policies learn, with their defaults, through a real worker, containers and a store: as in their simulations.

An input says what each model answers to it, 0 being right: so a test chooses who errs when.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

from clipper.control.messages import DescribePolicy, PolicyDescription
from clipper.control.snapshot import ApplicationSnapshot, VersionSnapshot
from clipper.learning.policies.by_name import default_half_life
from clipper.settings.application import Selection
from clipper.settings.version import Batching
from tests.serving import Client, Serving, application, model, serving

pytestmark = pytest.mark.long

MODEL = "def predict(inputs):\n    return [int(row[{}]) for row in inputs]\n"
MODELS = ("a", "b", "c", "d", "e")
# Of what is sent at once; feedback on it is then as late as that.
AT_ONCE = 20

CROWD = (0.05, 0.2, 0.3, 0.4, 0.5)
OBSERVATIONS = 5000
# Pieces of feedback that are judged at once are judged by the same weights. exp4 then moves further than it means to,
# since it reacts to a hundred or so: of 250 at once the best one is left with a share of 0.6, of 50 with 0.9.
TAUGHT_AT_ONCE = 50
# The best model has not erred in this many of the latest outputs: exp4 remembers a hundred or so.
LATELY = 250
IN_CONTEXTS = ["exp3", "exp4", "thompson", "ucb1"]

REWARDED = {"exp4": {}, "ensemble": {"weighting": "accuracy"}, "stacking": {}}
CHANGING = ["adaptive", "exp4", "thompson"]
ROUNDS = 2000


def learner(policy: str, test: str, **parameters: Any) -> ApplicationSnapshot:
    name = f"{policy.replace('_', '-')}-{test}"
    selection = Selection(policy, parameters, half_life=default_half_life(policy))
    return application(name, *MODELS, selection=selection, id=f"id-of-{name}")


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as system:
        system.start_worker()
        containers = [system.start_container(MODEL.format(number), name) for number, name in enumerate(MODELS)]
        versions = [
            model(VersionSnapshot("1", "float64", Batching(), cache=True, replicas=(each.address,)), name=name)
            for name, each in zip(MODELS, containers)
        ]
        applications = [learner(policy, "crowd") for policy in IN_CONTEXTS]
        applications += [learner(policy, "rewarded", **parameters) for policy, parameters in REWARDED.items()]
        applications += [learner(policy, "changing") for policy in CHANGING]
        applications += [
            learner("single", "long"),
            learner("stacking", "copies"),
            learner("stacking", "sum", answer="mean"),
        ]
        assert system.apply(applications, versions).unlinked == {}
        yield system


def described(system: Serving, name: str, context: str | None = None) -> PolicyDescription:
    return system.worker.control.ask(DescribePolicy(name, context))


def shares(system: Serving, name: str, context: str | None = None) -> dict[str, float]:
    return {each.model: each.share for each in described(system, name, context).models}


def outputs(means: Sequence[float], chance: Random) -> list[int]:
    """One a model: right, or one of nine wrong labels."""
    return [chance.randint(1, 9) if chance.random() < mean else 0 for mean in means]


def in_turns(client: Client, name: str, rows: Sequence[list[int]], tell: Callable[[Any], dict[str, Any]]) -> list[Any]:
    """Ask about each row, and send feedback; so many at once."""
    answers: list[Any] = []
    for start in range(0, len(rows), AT_ONCE):
        body = {"input_batch": rows[start : start + AT_ONCE]}
        now = client.ask(f"/{name}/predict", body).json["batch_predictions"]
        told = [{"query_id": each["query_id"], **tell(each)} for each in now]
        outcomes = client.ask(f"/{name}/observe", {"observations": told}).json["observations"]
        assert all("observed" in each for each in outcomes), outcomes
        answers += now
    return answers


@pytest.fixture(scope="module")
def crowds(system: Serving) -> None:
    """All have learned from 5,000 pieces of feedback without a context."""
    chance = Random(1)
    rows = [outputs(CROWD, chance) for _ in range(OBSERVATIONS - LATELY)]
    rows += [outputs((0.0, *CROWD[1:]), chance) for _ in range(LATELY)]

    def teach(policy: str) -> None:
        with system.worker.connect() as client:
            for start in range(0, OBSERVATIONS, TAUGHT_AT_ONCE):
                told = [{"input": row, "label": 0} for row in rows[start : start + TAUGHT_AT_ONCE]]
                body = {"observations": told}
                assert client.ask(f"/{policy.replace('_', '-')}-crowd/observe", body).status == 200

    threads = [threading.Thread(target=teach, args=(policy,)) for policy in IN_CONTEXTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("crowds")
@pytest.mark.parametrize("policy", IN_CONTEXTS)
def test_a_new_context_follows_the_application_until_its_own_feedback(system: Serving, policy: str) -> None:
    name = f"{policy.replace('_', '-')}-crowd"
    crowd = shares(system, name)
    assert crowd["a"] > 0.6
    assert shares(system, name, "new") == pytest.approx(crowd, abs=0.06)
    # To this user the crowd's best is always wrong, and the next always right.
    with system.worker.connect() as client:
        for number in range(40):
            answer = client.ask(f"/{name}/predict", {"input": [7, 0, 5, 5, 5 + number % 2], "context": "new"}).json
            told = {"query_id": answer["query_id"], "label": 0, "context": "new"}
            assert client.ask(f"/{name}/observe", told).status == 200
    own = shares(system, name, "new")
    assert own["a"] < 0.25, own
    # Feedback of one user also teaches the state of all users, at the weight of one among many.
    assert shares(system, name, "another") == pytest.approx(shares(system, name), abs=0.06)


@pytest.mark.parametrize("policy", REWARDED)
def test_rewards_teach_a_policy_of_all_models_which_is_best(system: Serving, policy: str) -> None:
    chance, name = Random(2), f"{policy}-rewarded"
    means = (0.4, 0.1, 0.4, 0.5, 0.5)
    with system.worker.connect() as client:
        in_turns(
            client,
            name,
            [outputs(means, chance) for _ in range(1000)],
            lambda answer: {"reward": int(answer["output"] == 0)},
        )
    found = shares(system, name)
    assert max(found, key=lambda each: found[each]) == "b"
    assert found["b"] > (0.5 if policy == "exp4" else 0.25), found


@pytest.mark.parametrize("policy", CHANGING)
def test_what_is_lost_where_the_best_and_the_worst_change_places_at_half(system: Serving, policy: str) -> None:
    """Feedback is twenty queries late at most, and still few are lost beside the best model of each half."""
    chance, name = Random(3), f"{policy}-changing"
    means = (0.05, 0.2, 0.3, 0.4, 0.5)
    rows = [outputs(means if number < ROUNDS / 2 else means[::-1], chance) for number in range(ROUNDS)]
    with system.worker.connect() as client:
        answers = in_turns(client, name, rows, lambda answer: {"label": 0})
    lost = sum(answer["output"] != 0 for answer in answers)
    best = sum(row[0 if number < ROUNDS / 2 else 4] != 0 for number, row in enumerate(rows))
    # Any one model alone loses 450 to 550 of them.
    assert lost - best < 200, (lost, best)


def test_stacking_sees_that_three_models_are_copies_of_one(system: Serving) -> None:
    chance = Random(4)
    rows = [[first, first, first, *others] for first, *others in (outputs((0.3,) * 3, chance) for _ in range(800))]
    with system.worker.connect() as client:
        answers = in_turns(client, "stacking-copies", rows, lambda answer: {"label": 0})
    lost = sum(answer["output"] != 0 for answer in answers[200:])
    # Three copies outvote two others always, and so lose what one of them does.
    assert lost < 0.7 * sum(row[0] != 0 for row in rows[200:]), lost
    found = shares(system, "stacking-copies")
    assert found["a"] + found["b"] + found["c"] == pytest.approx(found["d"], abs=0.12)


def test_stacking_corrects_numbers_that_are_too_large(system: Serving) -> None:
    chance = Random(5)
    rows = []
    for _ in range(300):
        right = chance.randint(-50, 50)
        rows.append([right, right + 20 + chance.randint(-2, 2), *(right + chance.randint(-40, 40) for _ in range(3))])
    with system.worker.connect() as client:
        for start in range(0, 300, AT_ONCE):
            # The first model's output is the label minus 30: the model is right as soon as its bias is corrected.
            told = [{"input": [row[0] - 30, *row[1:]], "label": row[0]} for row in rows[start : start + AT_ONCE]]
            assert client.ask("/stacking-sum/observe", {"observations": told}).status == 200
        answer = client.ask("/stacking-sum/predict", {"input": [-30 + 7, 20 + 7, 0, 0, 0]}).json
    assert answer["output"] == pytest.approx(7, abs=3), answer


def test_feedback_by_id_on_long_inputs_works_after_ten_thousand_queries(system: Serving) -> None:
    """A query's output is kept, and its input is not."""
    batch = b'{"input_batch":[%b]}' % b",".join([b"[%b]" % b",".join([b"0.5"] * 784)] * 500)
    with system.worker.connect() as client:
        first = client.ask("/single-long/predict", batch).json["batch_predictions"][0]
        for _ in range(21):
            assert client.ask("/single-long/predict", batch).status == 200
        assert client.ask("/single-long/observe", {"query_id": first["query_id"], "label": 0}).status == 200
        ahead = {"query_id": first["query_id"] + 10_000_000, "label": 0}
        lacking = client.ask("/single-long/observe", ahead)
    assert lacking.status == 404 and "never asked" in lacking.json["cause"]
    window = system.worker.statistics().feedback_window
    assert window.queries >= 11_000 and window.evicted == 0
