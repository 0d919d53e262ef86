"""A real worker that gets differences: it serves what the whole snapshot would have it serve."""

from collections.abc import Iterator

import pytest

from clipper.control.difference import Difference
from clipper.control.messages import ApplyDifference, GetStatistics, encode
from clipper.control.snapshot import KeySnapshot, ModelSnapshot, Snapshot
from clipper.values.types import ModelId
from tests.serving import SUM, ControlClient, Serving, application, model, serving, version

TWICE = "def predict(inputs):\n    return [float(2 * row.sum()) for row in inputs]\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Serving]:
    with serving() as system:
        system.start_worker()
        system.start_container(SUM)
        system.start_container(TWICE, version="2")
        system.start_container(SUM, model="n")
        yield system


@pytest.fixture
def system(shared: Serving) -> Serving:
    """With an application for each of two models."""
    shared.apply([application("one", "m"), application("other", "n")], [current(shared, "1"), other(shared)])
    return shared


def current(system: Serving, which: str) -> ModelSnapshot:
    one, two, _ = system.containers
    return model(version(one), version(two, name="2"), current=which)


def other(system: Serving) -> ModelSnapshot:
    return model(version(system.containers[2]), name="n")


def output(system: Serving, name: str, headers: dict[str, str] | None = None) -> object:
    with system.worker.connect() as client:
        answer = client.ask(f"/{name}/predict", {"input": [20, 22]}, **(headers or {})).json
    return answer.get("output", answer.get("error"))


def told(system: Serving, **fields: object) -> Difference:
    """From what the worker has to the next generation."""
    generation = system.worker.statistics().generation
    system._generation = generation + 1
    return Difference(generation, generation + 1, **fields)  # type: ignore[arg-type]


def test_applications_come_change_and_go(system: Serving) -> None:
    difference = told(system, applications=(application("new", "m"), application("one", "n")))
    assert system.worker.apply(difference).generation == difference.generation
    assert [output(system, name) for name in ("new", "one", "other")] == [42.0, 42.0, 42.0]
    system.worker.apply(told(system, gone_applications=("one",), models=(current(system, "2"),)))
    assert [output(system, name) for name in ("new", "one", "other")] == [84.0, "not_found", 42.0]
    with system.worker.connect() as client:
        index = client.ask("/v2/repository/index", {}).json
    assert sorted({each["name"] for each in index}) == ["new", "other"]


def test_a_model_reaches_those_that_link_it(system: Serving) -> None:
    system.worker.apply(told(system, models=(current(system, "2"),)))
    assert [output(system, name) for name in ("one", "other")] == [84.0, 42.0]
    applied = system.worker.apply(told(system, gone_models=("m",)))
    assert (applied.unlinked, applied.undrained) == ({}, ())
    assert [output(system, name) for name in ("one", "other")] == ["no_replica", 42.0]
    assert [each.model for each in system.worker.statistics().versions] == ["n"]


def test_one_that_comes_twice_or_late_changes_nothing(system: Serving) -> None:
    first = told(system, models=(current(system, "2"),))
    system.worker.apply(first)
    second = told(system, models=(current(system, "1"),))
    for _ in range(2):
        assert system.worker.apply(second).generation == second.generation
        applied = system.worker.apply(first)
        assert (applied.generation, applied.needs_whole) == (second.generation, False)
        assert output(system, "one") == 42.0


def test_a_worker_that_is_behind_asks_for_the_whole(system: Serving) -> None:
    generation = system.worker.statistics().generation
    ahead = Difference(generation + 1, generation + 2, gone_applications=("one", "other"))
    applied = system.worker.apply(ahead)
    assert (applied.generation, applied.needs_whole) == (generation, True)
    assert output(system, "one") == 42.0
    whole = Snapshot(generation + 2, (application("one", "n"),), (other(system),))
    applied = system.worker.apply(whole)
    assert (applied.generation, applied.needs_whole) == (generation + 2, False)
    assert [output(system, name) for name in ("one", "other")] == [42.0, "not_found"]
    system._generation = generation + 2


def test_what_cannot_be_applied_leaves_no_base(system: Serving) -> None:
    difference = told(system, applications=(application("new", input_type="complex"),), gone_models=("m",))
    client = ControlClient(system.worker.control_path)
    client.socket.sendall(encode(ApplyDifference(difference)))
    assert client.socket.recv(1) == b""
    client.close()
    applied = system.worker.apply(Difference(difference.generation, difference.generation + 1))
    assert (applied.generation, applied.needs_whole) == (0, True)
    whole = Snapshot(difference.generation + 1, (application("one", "m"),), (current(system, "1"),))
    assert system.worker.apply(whole).generation == whole.generation
    assert [output(system, name) for name in ("one", "other")] == [42.0, "not_found"]
    assert [each.model for each in system.worker.statistics().versions] == ["m", "m"]
    system._generation = whole.generation


def test_keys_come_and_go(system: Serving) -> None:
    digest = "9b74c9897bac770ffc029102a200c5de" + "0" * 32
    system.worker.apply(told(system, needs_key=True, keys=(KeySnapshot("k", digest),)))
    assert [output(system, name) for name in ("one", "other")] == ["unauthorized"] * 2
    assert output(system, "one", {"authorization": "Bearer wrong"}) == "unauthorized"
    system.worker.apply(told(system, gone_keys=("k",)))
    assert [output(system, name) for name in ("one", "other")] == [42.0, 42.0]


def test_statistics_of_some_are_of_these_alone(system: Serving) -> None:
    asked = GetStatistics(("one", "unknown"), (ModelId("m", "2"), ModelId("m", "9")))
    found = system.worker.control.ask(asked).worker
    assert [each.name for each in found.applications] == ["one"]
    assert [(each.model, each.version) for each in found.versions] == [("m", "2")]
    assert [each.id for each in found.replicas] == [version(system.containers[1]).replicas[0].id]
