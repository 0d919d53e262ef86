"""Nothing of Ray is needed, or imported, where no model runs on it."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from msgspec import structs

from clipper.base.run_as import RunAs
from clipper.errors import InvalidArgument
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.launcher import Facilities
from clipper.supervisor.managers.manager import Manager
from clipper.supervisor.managers.open import open_cluster_host, open_launchers, open_ray
from tests.architecture.source_tree import PACKAGE, imports, module_name
from tests.manager_bench import Bench

ACTOR, DRIVER = "clipper.supervisor.managers.ray.actor", "clipper.supervisor.managers.ray.driver"
LEFT = "clipper.supervisor.managers.ray.orphans"
NODE_ACTOR, WORKER_ACTOR = "clipper.supervisor.managers.ray.node_actor", "clipper.supervisor.managers.ray.worker_actor"


def with_settings(facilities: Facilities, **changes: object) -> Facilities:
    return replace(facilities, settings=structs.replace(facilities.settings, **changes))


def without_python(facilities: Facilities) -> Facilities:
    """No other Python than the server's may have Ray."""
    return with_settings(facilities, ray_python=None)


def importers_of(*names: str) -> set[str]:
    return {
        module_name(PACKAGE.parent.parent / found.file)
        for found in imports()
        if any(found.module == name or found.module.startswith(f"{name}.") for name in names)
    }


def test_only_own_programs_and_what_they_send_to_nodes_import_ray() -> None:
    assert importers_of("ray") == {ACTOR, NODE_ACTOR, WORKER_ACTOR, DRIVER, LEFT}
    assert importers_of(ACTOR) == importers_of(WORKER_ACTOR) == {DRIVER}
    assert importers_of(NODE_ACTOR) == {ACTOR, WORKER_ACTOR}
    assert importers_of(DRIVER) == importers_of(LEFT) == set()
    # The other library of the extra.
    authority, credentials = "clipper.control.authority", "clipper.supervisor.workers.credentials"
    assert importers_of("cryptography") == {"clipper.supervisor.managers.ray.front", authority}
    assert importers_of(authority) == {WORKER_ACTOR, credentials}
    assert importers_of(credentials) == {"clipper.supervisor.server"}
    assert importers_of("clipper.supervisor.managers.ray.front") == {ACTOR, WORKER_ACTOR}


def test_it_runs_no_models_as_the_nodes_own_user_where_another_is_wanted(tmp_path: Path) -> None:
    facilities = replace(Bench(tmp_path).facilities, run_as=RunAs("nobody", 65534, 65534))
    launcher = open_ray(facilities)
    assert launcher is not None
    with pytest.raises(InvalidArgument, match="this server has --run-as"):
        launcher.check(VersionSpec("a", "file", "model.joblib"))


def test_without_its_extra_there_is_no_ray(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_spec("ray") is None, "the tests' own environment has it, so this test says nothing"
    facilities = Bench(tmp_path).facilities
    assert open_ray(facilities) is not None  # another Python is given, which may have it
    assert open_ray(without_python(facilities)) is None
    assert "ray" not in open_launchers(without_python(facilities))
    assert "earlier server" not in caplog.text
    # Without Ray, leftovers there cannot be found, so the log tells of them.
    (facilities.home / "ray-in-use").touch()
    assert open_ray(without_python(facilities)) is None
    assert "an earlier server of this home may have left" in caplog.text


def test_where_query_workers_are_on_nodes_models_run_there_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert {"local", "docker", "ray"} >= set(open_launchers(bench.facilities)) >= {"local", "ray"}
    assert "ray" not in open_launchers(bench.facilities, "here")
    launchers = open_launchers(bench.facilities, "elsewhere")
    assert set(launchers) == {"ray"}
    manager = Manager(
        launchers, tmp_path, lambda: 1, lambda _: 1.0, bench.samples, lambda: None, has_workers_elsewhere=True
    )
    for name in ("local", "docker"):
        with pytest.raises(InvalidArgument, match="cannot reach them there: expected manager 'ray'"):
            manager.check(name, VersionSpec("a", "file", "model.joblib"))
    manager.check("ray", VersionSpec("a", "file", "model.joblib", manager="ray"))


def test_without_its_extra_there_are_no_workers_on_nodes(tmp_path: Path) -> None:
    facilities = without_python(Bench(tmp_path).facilities)
    assert open_cluster_host(facilities, None) is None


def test_workers_of_another_home_are_looked_for_only_where_some_may_be(tmp_path: Path) -> None:
    facilities = Bench(tmp_path).facilities
    in_use = tmp_path / "ray-workers-in-use"
    for shares, on_nodes in ((False, False), (False, True), (True, False)):
        given = with_settings(replace(facilities, cluster="c" if shares else ""), workers_per_node=int(on_nodes))
        assert open_cluster_host(given, None) is not None and not in_use.exists()
    given = with_settings(replace(facilities, cluster="c"), workers_per_node=1)
    assert open_cluster_host(given, None) is not None
    assert in_use.exists()
