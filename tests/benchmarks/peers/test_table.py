"""The peers' own files are there, and their settings are all said."""

import re

import pytest

from benchmarks.peers.table import APPS, PEERS
from benchmarks.peers.tasks import TASKS
from scripts.real_models import requirements

VARIABLE = re.compile(r'environ\["([A-Z_]+)"\]')
# Of every process.
COMMON = {"TASK", "SLO_MS", "MODEL", "ROWS", "PORT", "SECOND_PORT", "THIRD_PORT", "SCRATCH", "BIN", "DATA"}
PARTS = {"python", "bin", "folder"}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("task", TASKS)
def test_all_that_is_named_is_there(name: str, task: str) -> None:
    peer = PEERS[name]
    settings = peer.settings_of(task)
    named = set(re.findall(r"\{(\w+)\}", peer.command))
    assert named <= PARTS | COMMON | settings.keys()
    apps = [word for part in peer.command.split() for word in re.findall(r"\w+_app", part)]
    for app in apps:
        read = set(VARIABLE.findall((APPS / f"{app}.py").read_text()))
        # Clipper's number of workers is its own to choose, where none is said.
        assert read <= COMMON | settings.keys() | ({"WORKERS"} if peer.environment is None else set())


def test_each_task_has_peers_beside_clipper() -> None:
    for task in TASKS:
        assert len([peer for peer in PEERS.values() if task in peer.tasks]) >= 4
        assert task in PEERS["clipper"].tasks


@pytest.mark.parametrize("environment", sorted({peer.environment for peer in PEERS.values() if peer.environment}))
def test_an_environment_pins_its_package(environment: str) -> None:
    [package] = {peer.package for peer in PEERS.values() if peer.environment == environment}
    pins = requirements(f"peers/{environment}").read_text()
    assert re.search(rf"^{package}(\[\w+\])?==", pins, re.MULTILINE)
