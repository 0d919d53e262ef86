"""Nothing of Ray is needed, or imported, where no model runs on it."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from source_tree import PACKAGE, imports, module_name

from clipper.errors import InvalidArgument
from clipper.managers.open import open_launchers
from clipper.managers.ray.open import open_ray
from clipper.run_as import RunAs
from clipper.settings.version import VersionSpec
from manager_bench import Bench

ACTOR, DRIVER = "clipper.managers.ray.actor", "clipper.managers.ray.driver"
NODE_ACTOR = "clipper.managers.ray.node_actor"


def importers_of(*names: str) -> set[str]:
    return {
        module_name(PACKAGE.parent.parent / found.file)
        for found in imports()
        if any(found.module == name or found.module.startswith(f"{name}.") for name in names)
    }


def test_only_the_driver_and_what_it_sends_to_nodes_import_ray() -> None:
    assert importers_of("ray") == {ACTOR, NODE_ACTOR, DRIVER}
    assert importers_of(ACTOR) == {DRIVER}
    assert importers_of(NODE_ACTOR) == {ACTOR}
    assert importers_of(DRIVER) == set()
    # The other library of the extra.
    assert importers_of("cryptography") == {"clipper.managers.ray.certificate"}
    assert importers_of("clipper.managers.ray.certificate") == {ACTOR}


def test_it_does_not_run_models_as_the_nodes_own_user_where_another_is_wanted(tmp_path: Path) -> None:
    facilities = replace(Bench(tmp_path).facilities, run_as=RunAs("nobody", 65534, 65534))
    launcher = open_ray(facilities)
    assert launcher is not None
    with pytest.raises(InvalidArgument, match="this server has --run-as"):
        launcher.check(VersionSpec("a", "file", "model.joblib"))


def test_without_its_extra_there_is_no_ray(tmp_path: Path) -> None:
    assert find_spec("ray") is None, "the tests' own environment has it, so this test says nothing"
    facilities = Bench(tmp_path).facilities
    assert open_ray(facilities) is not None  # another Python is given, which may have it
    assert open_ray(replace(facilities, ray_python=None)) is None
    assert "ray" not in open_launchers(replace(facilities, ray_python=None))
