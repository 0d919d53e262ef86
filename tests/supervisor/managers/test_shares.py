from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.base.processes.limits import Share
from clipper.errors import ContainerFailed, InvalidArgument
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.shares import (
    THREAD_VARIABLES,
    Gpus,
    Shares,
    environment,
    least_used,
    parse_gpus,
    whole,
)


def spec(cpus: float | None = None, gpus: str | None = None) -> VersionSpec:
    return VersionSpec("a", "import", "m:f", cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("all", Gpus()),
        ("2", Gpus(count=2)),
        ("0,1", Gpus(ids=("0", "1"))),
        ("GPU-8932f937-d72c", Gpus(ids=("GPU-8932f937-d72c",))),
        ("MIG-GPU-8932/1/2,3", Gpus(ids=("MIG-GPU-8932/1/2", "3"))),
    ],
)
def test_a_wish_for_gpus(text: str, wish: Gpus) -> None:
    assert parse_gpus(text) == wish


@pytest.mark.parametrize("text", ["", "0", "65", "0,", "0, 1", "-1", "all,0\n", "$(x)"])
def test_what_is_no_wish_for_gpus(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected all, how many"):
        parse_gpus(text)


@given(st.integers(1, 8), st.lists(st.integers(1, 8), max_size=30))
def test_what_is_dealt_out_is_spread_as_evenly_as_it_can_be(items: int, counts: list[int]) -> None:
    taken: list[int] = []
    for count in counts:
        dealt = least_used(range(items), count, taken)
        assert len(set(dealt)) == len(dealt) == min(count, items)
        assert list(dealt) == sorted(dealt)
        taken += dealt
        times = Counter(taken)
        assert max(times.values()) - min(times[item] for item in range(items)) <= 1


def test_replicas_get_cores_and_gpus_in_turn_and_give_them_back() -> None:
    shares = Shares(cores=[0, 1, 2, 3], gpus=["0", "1"])
    assert shares.give("a", spec(2, "1")) == Share(frozenset({0, 1}), ("0",))
    assert shares.give("b", spec(1.5, "1")) == Share(frozenset({2, 3}), ("1",))
    assert shares.give("c", spec(1, "1")) == Share(frozenset({0}), ("0",))
    shares.take_back("b")
    assert shares.give("d", spec(1, "1")) == Share(frozenset({2}), ("1",))
    shares.has("left by another supervisor", Share(frozenset({3}), None))
    assert shares.give("e", spec(1)) == Share(frozenset({1}), ())


def test_what_is_not_dealt_out() -> None:
    shares = Shares(cores=[0, 1], gpus=["0"])
    # Any core, where nothing was asked for or all of them; no GPU, where none was.
    assert shares.give("a", spec()) == shares.give("b", spec(cpus=2)) == shares.give("c", spec(cpus=64)) == Share()
    # Which ones they are the operator knows, and what all are the container.
    assert shares.give("d", spec(gpus="5,GPU-7")).gpus == ("5", "GPU-7")
    assert shares.give("e", spec(gpus="all")).gpus is None
    with pytest.raises(ContainerFailed, match="asks for 2 GPUs, and this machine has 1"):
        shares.give("f", spec(gpus="2"))


@pytest.mark.parametrize(("cpus", "number"), [(None, "1"), (0.5, "1"), (1.0, "1"), (1.5, "2"), (4.0, "4")])
def test_libraries_are_told_how_many_threads(cpus: float | None, number: str) -> None:
    assert environment(cpus, Share(gpus=None)) == dict.fromkeys(THREAD_VARIABLES, number)
    assert whole(cpus or 1) == int(number)


def test_gpus_are_hidden_unless_asked_for() -> None:
    assert environment(None, Share())["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(None, Share(gpus=("0", "2")))["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert "CUDA_VISIBLE_DEVICES" not in environment(None, Share(gpus=None))
