from typing import Any

import pytest

from clipper.errors import InvalidArgument
from clipper.managers.ray.messages import Placement
from clipper.managers.ray.placement import gpu_count, placement_of, room_of
from clipper.settings.version import VersionSpec


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Placement(1.0)),
        ({"cpus": 0.5}, Placement(0.5)),
        ({"cpus": 8.0, "gpus": "2", "memory_bytes": 1 << 30}, Placement(8.0, 2.0, 1 << 30)),
        ({"gpus": "0.25"}, Placement(1.0, 0.25)),
    ],
)
def test_what_a_version_asks_of_ray(asked: dict[str, Any], expected: Placement) -> None:
    assert placement_of(VersionSpec("a", "import", "m:f", **asked)) == expected
    assert expected.strategy == "SPREAD"


@pytest.mark.parametrize("text", ["all", "0,1", "GPU-8932f937", "0", "-1", "1.5", "65", "nan", "inf", "", "1e400"])
def test_gpus_that_ray_cannot_choose(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected how many"):
        gpu_count(text)


def test_what_a_replica_waits_for_is_told() -> None:
    assert room_of(Placement(1.0)) == "1 CPUs"
    everything = Placement(0.5, 2, 3 << 29)
    assert room_of(everything) == "0.5 CPUs, 2 GPUs, 1.5 GiB of memory"
