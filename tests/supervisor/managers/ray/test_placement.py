from typing import Any

import pytest

from clipper.errors import InvalidArgument
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.ray.messages import Nodes, Placement
from clipper.supervisor.managers.ray.placement import check_placement, gpu_count, parse_nodes, placement_of, room_of


def spec(**asked: Any) -> VersionSpec:
    return VersionSpec("a", "import", "m:f", **asked)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Placement(1.0)),
        ({"cpus": 0.5}, Placement(0.5)),
        ({"cpus": 8.0, "gpus": "2", "memory_bytes": 1 << 30}, Placement(8.0, 2.0, 1 << 30)),
        ({"gpus": "0.25"}, Placement(1.0, 0.25)),
        (
            {"resources": {"ssd": 1.0}, "placement": "pack"},
            Placement(1.0, resources={"ssd": 1.0}, nodes=Nodes("DEFAULT")),
        ),
    ],
)
def test_what_a_version_asks_of_ray(asked: dict[str, Any], expected: Placement) -> None:
    check_placement(spec(**asked))
    assert placement_of(spec(**asked)) == expected
    assert Placement(1.0).nodes.strategy == "SPREAD"


@pytest.mark.parametrize("text", ["all", "0,1", "GPU-8932f937", "0", "-1", "1.5", "65", "nan", "inf", "", "1e400"])
def test_gpus_that_ray_cannot_choose(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected how many"):
        gpu_count(text)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("spread", Nodes()),
        ("pack", Nodes("DEFAULT")),
        ("node=10.0.0.2", Nodes(address="10.0.0.2")),
        ("node=fd00::2", Nodes(address="fd00::2")),
        ("zone=a", Nodes(labels={"zone": "a"})),
        # A label of that name is none of ours.
        ("spread=a", Nodes(labels={"spread": "a"})),
        (
            "pack, ray.io/region=us-west1,disk=s_s.d",
            Nodes("DEFAULT", labels={"ray.io/region": "us-west1", "disk": "s_s.d"}),
        ),
        ("zone=a,spread,node=10.0.0.2", Nodes("SPREAD", "10.0.0.2", {"zone": "a"})),
    ],
)
def test_placements(text: str, nodes: Nodes) -> None:
    assert parse_nodes(text) == nodes


@pytest.mark.parametrize(
    "text",
    ["", "SPREAD", "pack,spread", "pack,pack", "node", "node=", "node=a", "node=10.0.0.2,node=10.0.0.3", "zone",
     "zone=", "=a", "zone=a,zone=b", "zone=a b", "zone=-a", "zone=!a", "zone=in(a)", "a/b/c=d", "zone=a,",
     f"zone={'a' * 64}", "node=10.0.0.2/24", "zone=a b"],
)  # fmt: skip
def test_placements_that_ray_does_not_have(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected spread or pack, node= and an address"):
        check_placement(spec(placement=text))


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"CPU": 1.0}, "the resource CPU has an option of its own: give cpus"),
        ({"memory": 1e6}, "give memory"),
        ({"ssd": 0.0}, "the resource ssd is 0.0: expected a number from 0.0001"),
        ({"ssd": 0.00001}, "from 0.0001"),
        ({"ssd": float("nan")}, "the resource ssd is nan"),
        ({"a=b": 1.0}, "'a=b' is not a resource's name"),
        ({"": 1.0}, "'' is not a resource's name"),
        ({str(number): 1.0 for number in range(33)}, "the number of resources is 33"),
    ],
)
def test_resources_that_ray_does_not_have(resources: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        check_placement(spec(resources=resources))


def test_what_a_replica_waits_for_is_told() -> None:
    assert room_of(Placement(1.0)) == "1 CPU"
    everything = Placement(0.5, 2, 3 << 29, {"ssd": 1.0, "tpu": 0.5}, Nodes("DEFAULT", "10.0.0.2", {"zone": "a"}))
    assert room_of(everything) == (
        "0.5 CPUs, 2 GPUs, 1.5 GiB of memory, 1 ssd, 0.5 tpu on the node 10.0.0.2 with the labels zone=a"
    )
