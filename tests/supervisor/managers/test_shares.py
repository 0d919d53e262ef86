from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.base.processes.gpus import Gpu
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


def spec(cpus: float | None = None, gpus: str | None = None, gpu_memory_bytes: int | None = None) -> VersionSpec:
    return VersionSpec("a", "import", "m:f", cpus=cpus, gpus=gpus, gpu_memory_bytes=gpu_memory_bytes)


def machine(count: int, memory_bytes: int = 0) -> list[Gpu]:
    return [Gpu(str(index), memory_bytes) for index in range(count)]


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("all", Gpus()),
        ("2", Gpus(count=2)),
        ("0.5", Gpus(part=0.5)),
        (".25", Gpus(part=0.25)),
        ("0,1", Gpus(ids=("0", "1"))),
        ("GPU-8932f937-d72c", Gpus(ids=("GPU-8932f937-d72c",))),
        ("MIG-GPU-8932/1/2,3", Gpus(ids=("MIG-GPU-8932/1/2", "3"))),
    ],
)
def test_a_wish_for_gpus(text: str, wish: Gpus) -> None:
    assert parse_gpus(text) == wish


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "0",
            "65",
            "0,",
            "0, 1",
            "-1",
            "all,0\n",
            "$(x)",
            "0.0",
            "1.5",
            "0.5.5",
            "1e-3",
            "0,5 ",
            "0.5,0.5",
            "0,1.5",
        ),
        *(
            "9" * 5000,
            "0." + "1" * 1_000_000,
            "G" * 1_000_000,
            ",".join(map(str, range(65))),
            "\N{ARABIC-INDIC DIGIT TWO}",
        ),
    ],
    ids=lambda text: repr(text[:20]),
)
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
    shares = Shares(cores=[0, 1, 2, 3], gpus=machine(2))
    assert shares.give("a", spec(2, "1")) == Share(frozenset({0, 1}), ("0",))
    assert shares.give("b", spec(1.5, "1")) == Share(frozenset({2, 3}), ("1",))
    assert shares.give("c", spec(1, "1")) == Share(frozenset({0}), ("0",))
    shares.take_back("b")
    assert shares.give("d", spec(1, "1")) == Share(frozenset({2}), ("1",))
    shares.has("left by another supervisor", Share(frozenset({3}), None), spec(1, "all"))
    assert shares.give("e", spec(1)) == Share(frozenset({1}), ())


def test_what_is_not_dealt_out() -> None:
    shares = Shares(cores=[0, 1], gpus=machine(1))
    # Any core, where nothing was asked for or all of them; no GPU, where none was.
    assert shares.give("a", spec()) == shares.give("b", spec(cpus=2)) == shares.give("c", spec(cpus=64)) == Share()
    # Which ones they are the operator knows, and what all are the container.
    assert shares.give("d", spec(gpus="5,GPU-7")).gpus == ("5", "GPU-7")
    assert shares.give("e", spec(gpus="all")).gpus is None
    with pytest.raises(ContainerFailed, match="asks for 2 GPUs, and this machine has 1"):
        shares.give("f", spec(gpus="2"))


def test_parts_of_gpus_are_packed_so_that_whole_ones_stay_free() -> None:
    shares = Shares(cores=[0], gpus=machine(2))
    given = [shares.give(str(number), spec(gpus="0.25")).gpus for number in range(5)]
    assert given == [("0",)] * 4 + [("1",)]
    # The fullest one with room takes the next.
    assert shares.give("half", spec(gpus="0.5")).gpus == ("1",)
    assert shares.give("quarter", spec(gpus="0.25")).gpus == ("1",)
    with pytest.raises(ContainerFailed, match=r"0\.5 of a GPU, and none of this machine's 2 GPUs has that left"):
        shares.give("refused", spec(gpus="0.5"))
    with pytest.raises(ContainerFailed, match="asks for a GPU, and this machine has none"):
        Shares(cores=[0], gpus=[]).give("a", spec(gpus="0.5"))
    shares.take_back("half")
    assert shares.give("again", spec(gpus="0.5")).gpus == ("1",)


def test_memory_of_gpus_is_packed_beside_their_parts() -> None:
    gigabyte = 10**9
    shares = Shares(cores=[0], gpus=machine(2, 8 * gigabyte))
    assert shares.give("a", spec(gpus="1", gpu_memory_bytes=5 * gigabyte)).gpus == ("0",)
    assert shares.give("b", spec(gpus="1", gpu_memory_bytes=3 * gigabyte)).gpus == ("0",)
    assert shares.give("c", spec(gpus="0.5", gpu_memory_bytes=8 * gigabyte)).gpus == ("1",)
    with pytest.raises(ContainerFailed, match=r"1 GB of a GPU's memory, and none of this machine's 2 GPUs"):
        shares.give("d", spec(gpus="1", gpu_memory_bytes=gigabyte))
    with pytest.raises(ContainerFailed, match="memory of this machine's GPUs is not known: install nvidia-ml-py"):
        Shares(cores=[0], gpus=machine(1)).give("a", spec(gpus="1", gpu_memory_bytes=gigabyte))


@given(st.integers(1, 8), st.lists(st.integers(1, 10), max_size=40), st.data())
def test_no_gpu_gives_out_more_parts_than_it_has(count: int, tenths: list[int], data: st.DataObject) -> None:
    shares = Shares(cores=[0], gpus=machine(count))
    held: dict[str, tuple[str, int]] = {}
    for number, asked in enumerate(tenths):
        if held and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(held)))
            shares.take_back(gone)
            del held[gone]
        rooms = [10 - sum(part for id_, part in held.values() if id_ == str(gpu)) for gpu in range(count)]
        wish = spec(gpus="1" if asked == 10 else f"0.{asked}")
        if asked < 10 and max(rooms) < asked:
            with pytest.raises(ContainerFailed):
                shares.give(str(number), wish)
        elif asked < 10:
            (id_,) = shares.give(str(number), wish).gpus or ()
            # The one with the least room that has enough.
            assert rooms[int(id_)] == min(room for room in rooms if room >= asked)
            held[str(number)] = (id_, asked)
        assert shares.crowding(str(number)) is None


def test_more_replicas_than_gpus_is_said() -> None:
    shares = Shares(cores=[0], gpus=machine(1))
    shares.give("a", spec(gpus="1"))
    assert shares.crowding("a") is None
    shares.give("b", spec(gpus="0,1"))
    assert shares.crowding("b") == (
        "its GPU 0 is shared by 2 replicas, which ask for 2 GPUs together: this machine has 1"
    )
    assert shares.crowding("without") is None


@pytest.mark.parametrize(("cpus", "number"), [(None, "1"), (0.5, "1"), (1.0, "1"), (1.5, "2"), (4.0, "4")])
def test_libraries_are_told_how_many_threads(cpus: float | None, number: str) -> None:
    assert environment(cpus, Share(gpus=None)) == dict.fromkeys(THREAD_VARIABLES, number)
    assert whole(cpus or 1) == int(number)


def test_gpus_are_hidden_unless_asked_for() -> None:
    assert environment(None, Share())["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(None, Share(gpus=("0", "2")))["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert "CUDA_VISIBLE_DEVICES" not in environment(None, Share(gpus=None))
