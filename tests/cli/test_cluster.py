"""``clipper cluster``, before a Ray that is scripted; test_workers_on_nodes.py has a real one."""

import json
from pathlib import Path

import pytest

from clipper.cli.commands import cluster
from clipper.errors import InvalidArgument, NotFound, Unavailable

OWNERS = [
    {"owner": "clipper-00", "replicas": 2, "workers": 3, "models": ["ads", "sum"]},
    {"owner": "clipper-11", "replicas": 0, "workers": 1, "models": []},
]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter whose Ray has these owners. It notes what it was called with."""
    python = tmp_path / "python"
    (tmp_path / "answer").write_text(json.dumps(OWNERS))
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/called"\ncat "{tmp_path}/answer"\n')
    python.chmod(0o755)
    return python


def called(python: Path) -> list[str]:
    return python.with_name("called").read_text().splitlines()


def test_the_owners_are_listed(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.list_all("10.0.0.1:6379", python)
    first, second = (line for line in capsys.readouterr().out.splitlines() if "clipper-" in line)
    assert first.split() == ["clipper-00", "2", "3", "ads,", "sum"] and second.split() == ["clipper-11", "0", "1", "-"]
    assert called(python) == ["-m clipper.supervisor.managers.ray.orphans 10.0.0.1:6379"]
    cluster.list_all("auto", python, as_json=True)
    assert json.loads(capsys.readouterr().out) == OWNERS


def test_one_owner_is_ended_if_it_is_there(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFound, match="expected an owner of clipper cluster list"):
        cluster.clean("clipper-22", True, "auto", python)
    cluster.clean("clipper-11", True, "auto", python)
    assert "ended 0 replicas and 1 query workers of clipper-11" in capsys.readouterr().out
    assert called(python)[-1] == "-m clipper.supervisor.managers.ray.orphans auto clipper-11"


def test_why_ray_cannot_be_asked_is_told(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="--ray-python"):
        cluster.list_all("auto")
    with pytest.raises(Unavailable, match="nobody cannot be run"):
        cluster.list_all("auto", python.with_name("nobody"))
    python.write_text("#!/bin/sh\necho noise >&2\necho 'Ray cannot be reached at auto: none runs' >&2\nexit 1\n")
    with pytest.raises(Unavailable, match="Ray cannot be reached at auto: none runs"):
        cluster.list_all("auto", python)
