"""The options that a container is created with."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.docker.options import (
    PUBLISHED,
    Setting,
    container_name,
    creation,
    dial_address,
    labels,
    limits,
    noted,
)
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.values.types import Loader

AROUND = Setting("/home/me/.clipper", "bridge", "unix")
ARTIFACT = Path("/home/me/.clipper/artifacts/a1")


def note(loader: Loader = "file", target: str = "model.joblib", **fields: Any) -> ContainerNote:
    spec = VersionSpec("a1", loader, target, manager="docker", **fields)
    return ContainerNote("ads", "2", 1, 7, "unix:/run/c7/s", spec)


def created(one: ContainerNote) -> dict[str, Any]:
    return creation(one, "image:1", "1000:100", ARTIFACT, AROUND)


def over_tcp(network: str, listen: str, loader: Loader = "file") -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that are given to ``create_container`` and to ``create_host_config``."""
    setting, one = Setting("/home/me/.clipper", network, "tcp"), replace(note(loader, "sum:3"), listen=listen)
    options = creation(one, "image:1", "1000:100", ARTIFACT, setting, token="s3cret")
    return options, limits(one, ARTIFACT, setting)


def test_over_tcp_a_container_shares_no_folder_and_gets_a_token() -> None:
    options, bounds = over_tcp("host", "tcp:127.0.0.1:4711")
    assert options["command"][3:5] == ["--listen", "tcp:127.0.0.1:4711"]
    assert options["environment"]["CLIPPER_TOKEN"] == "s3cret"
    assert (bounds["binds"], options["ports"], bounds["port_bindings"]) == ({}, None, None)
    # Where anybody can read it, it is not.
    assert "s3cret" not in str({**options, "environment": None}) and "s3cret" not in str(bounds)


def test_in_its_own_network_it_publishes_a_port_to_this_machine_alone() -> None:
    options, bounds = over_tcp("bridge", PUBLISHED)
    assert options["command"][4] == "tcp:0.0.0.0:7000"
    assert (options["ports"], bounds["port_bindings"]) == ([7000], {7000: ("127.0.0.1",)})


def test_over_tcp_an_image_runs_as_whoever_it_says() -> None:
    assert "user" not in over_tcp("bridge", PUBLISHED, "image")[0]
    assert over_tcp("bridge", PUBLISHED)[0]["user"] == created(note("image", "sum:3"))["user"] == "1000:100"


@pytest.mark.parametrize(
    ("listen", "ports", "dialled"),
    [
        ("unix:/run/c7/s", {}, "unix:/run/c7/s"),
        ("tcp:127.0.0.1:4711", {"7000/tcp": None}, "tcp:127.0.0.1:4711"),
        (
            PUBLISHED,
            {"80/tcp": None, "7000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]},
            "tcp:127.0.0.1:32768",
        ),
    ],
)
def test_where_it_is_dialled(listen: str, ports: dict[str, Any], dialled: str) -> None:
    assert dial_address(listen, ports) == dialled


def test_a_note_is_read_from_the_labels_that_it_was_written_to() -> None:
    one = note(memory_bytes=1 << 30, sample="[1]")
    found = labels(one, "/home/me/.clipper")
    assert noted(found) == replace(one, spec=replace(one.spec, sample=None)) and "[1]" not in str(found)
    assert (found["clipper.replica"], found["clipper.start"]) == ("ads:2#1", "ads:2#1.g7")
    assert noted({}) is None and noted({"clipper.note": "{}"}) is None


def test_a_name_has_what_docker_takes() -> None:
    assert container_name(note(), "0a1b2c") == "clipper-ads-2-1.g7-0a1b2c"


def test_a_model_runs_in_the_runtime_as_whoever_runs_clipper() -> None:
    found = created(note(memory_bytes=1 << 30, cpus=1.5))
    assert found["user"] == "1000:100"
    assert found["command"][:5] == ["python3", "-m", "clipper.model.runtime", "--listen", "unix:/run/c7/s"]
    assert "--memory-bytes" not in found["command"]
    assert found["environment"]["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in found["environment"]


def test_a_jar_is_told_its_memory() -> None:
    assert created(note("binary", "sum.jar", memory_bytes=1 << 30))["command"][:4] == [
        *("java", f"-Xmx{3 << 28}", "-jar", "/clipper/artifact/sum.jar")
    ]


def test_an_image_that_is_given_runs_its_own_program_on_data_from_here() -> None:
    one = note("image", "sum:3", data="data/table")
    found = created(one)
    assert "entrypoint" not in found
    assert "read_only" not in limits(one, ARTIFACT, AROUND)
    assert found["command"][-2:] == ["--data", f"{ARTIFACT}/data/table"]
    assert limits(one, ARTIFACT, AROUND)["binds"][str(ARTIFACT)] == {"bind": str(ARTIFACT), "mode": "ro"}


def test_limits_are_those_of_the_version() -> None:
    found = limits(note(memory_bytes=1 << 30, cpus=0.5), ARTIFACT, AROUND)
    assert (found["mem_limit"], found["memswap_limit"], found["nano_cpus"]) == (1 << 30, 1 << 30, 500_000_000)
    assert found["binds"] == {"/run/c7": {"bind": "/run/c7", "mode": "rw"}}
    assert found["network_mode"] == "bridge"
    assert found["read_only"] and list(found["tmpfs"]) == ["/tmp"]


def test_where_processors_are_short_it_gets_a_third_of_what_others_do() -> None:
    # The kernel's weight of a process of niceness 5 is 335, that of one of niceness 0 is 1024.
    assert limits(note(), ARTIFACT, AROUND)["cpu_shares"] == pytest.approx(335, abs=1)


@pytest.mark.parametrize(
    ("gpus", "request_"),
    [("all", {"count": -1}), ("2", {"count": 2}), ("0,GPU-8932f937", {"device_ids": ["0", "GPU-8932f937"]})],
)
def test_gpus_are_requested(gpus: str, request_: dict[str, Any]) -> None:
    found = limits(note(gpus=gpus), ARTIFACT, AROUND)
    assert found["device_requests"] == [{**request_, "capabilities": [["gpu"]]}]
    assert limits(note(), ARTIFACT, AROUND)["device_requests"] is None
