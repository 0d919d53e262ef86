"""The table of managers has each that versions can ask for, and no other part of Clipper has a table of its own."""

from pathlib import Path
from typing import get_args

import pytest

from clipper.errors import InvalidArgument
from clipper.settings.version import ManagerName, VersionSpec
from tests.manager_bench import Bench


def test_each_manager_that_a_version_can_ask_for_is_in_the_table(tmp_path: Path) -> None:
    # The tests' own environment has every extra.
    assert Bench(tmp_path).launchers.keys() == set(get_args(ManagerName))


@pytest.mark.parametrize(
    ("manager", "spec", "complaint"),
    [
        ("local", VersionSpec("a", "image", "image:1"), "expected manager 'docker'"),
        ("docker", VersionSpec("a", "file", "model.joblib", python="3.12"), "the base image's Python"),
        ("ray", VersionSpec("a", "image", "image:1"), "expected manager 'docker'"),
        ("ray", VersionSpec("a", "file", "model.joblib", gpus="all"), "which chooses the GPUs"),
        ("ray", VersionSpec("a", "file", "model.joblib", placement="far"), "expected spread or pack"),
        ("local", VersionSpec("a", "file", "model.joblib", placement="pack"), "placement is for a manager of several"),
        (
            "docker",
            VersionSpec("a", "file", "model.joblib", resources={"ssd": 1.0}),
            "resources is for .* not 'docker'",
        ),
        ("local", VersionSpec("a", "file", "model.joblib", gpus="65"), "expected all, how many"),
        ("docker", VersionSpec("a", "file", "model.joblib", gpus="65"), "expected all, how many"),
    ],
)
def test_a_manager_refuses_what_it_cannot_run(
    tmp_path: Path, manager: ManagerName, spec: VersionSpec, complaint: str
) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(InvalidArgument, match=complaint):
        bench.manager.check(manager, spec)
    bench.manager.check(manager, VersionSpec("a", "file", "model.joblib"))
    del bench.launchers[manager]
    with pytest.raises(InvalidArgument, match=rf"pip install 'clipper-serving\[{manager}\]'"):
        bench.manager.check(manager, spec)
