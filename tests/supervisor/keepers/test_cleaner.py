import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.cleaner import UNUSED_AGE_S, remove_unused_artifacts
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Put
from tests.supervisor.live_server import Server, answering, with_application
from tests.waiting import until

DEPLOYED, LINKED, LEFT = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        catalog = Catalog(registry)
        spec = VersionSpec(DEPLOYED, "import", "m:f")
        catalog.commit(
            Put(ModelRecord("m")),
            Put(VersionRecord("m", "1", spec, Batching(), True, 1, 0.0)),
            Put(ApplicationRecord("app", "string", 20.0, id="app#1", code=LINKED)),
        )
        yield catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    for name in (DEPLOYED, LINKED, LEFT, ".incoming-x"):
        (folder / name / "code").mkdir(parents=True)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_nobody_uses_is_removed_when_it_is_a_day_old(catalog: Catalog, folder: Path) -> None:
    artifacts, now_s = Artifacts(folder), time.time()
    everything = names(folder)
    remove_unused_artifacts(catalog, artifacts, now_s + UNUSED_AGE_S - 60)
    assert names(folder) == everything
    remove_unused_artifacts(catalog, artifacts, now_s + UNUSED_AGE_S + 60)
    assert names(folder) == everything - {LEFT}


def test_one_that_is_asked_for_is_not_old(folder: Path) -> None:
    artifacts = Artifacts(folder)
    made_at_s = (folder / LEFT).stat().st_ctime
    assert LEFT in artifacts.older_than(made_at_s + 0.01)

    def is_renewed() -> bool:
        assert artifacts.renew(LEFT)
        return (folder / LEFT).stat().st_ctime >= made_at_s + 0.01

    until(is_renewed)
    assert LEFT not in artifacts.older_than(made_at_s + 0.01)
    assert not artifacts.renew("d" * 64)


@pytest.mark.long
def test_what_is_kept_of_versions_and_contexts_is_bounded(server: Server) -> None:
    with_application(server.with_options("--keep-versions", "1", "--max-contexts", "20"))
    selecting = {"name": "learner", "slo_ms": 20_000, "input_type": "float64[2]", "links": [{"model": "m"}]}
    server.call("POST", "/applications", selecting)
    for number in range(60):
        assert server.observe("learner", input=[1, 2], label="one", context=f"user {number}").status_code == 200
    for number in range(4):
        server.deploy("m", answering(number), input_type="float64[2]")

    def versions() -> list[str]:
        return [version["version"] for version in server.call("GET", "/models/m")["versions"]]

    until(lambda: versions() == ["3", "4", "5"])  # one sleeps, one is to roll back to, one is current
    until(lambda: len(list((server.home / "artifacts").iterdir())) == 3)
    assert server.predict("app", [1, 2])["output"] == 3

    def contexts() -> set[str]:
        with closing(sqlite3.connect(server.home / "selection.sqlite3")) as store:
            return {context for (context,) in store.execute("SELECT DISTINCT context FROM sums")}

    until(lambda: len(contexts()) == 21)
    assert contexts() == {"", *(f"user {number}" for number in range(40, 60))}
    listed = server.call("GET", "/applications/learner/contexts?limit=2")
    assert listed == {"count": 20, "contexts": ["user 59", "user 58"]}
    server.call("DELETE", "/applications/learner/contexts?context=user%2059")
    assert "user 59" not in contexts()
    # Those who have it in memory follow.

    def observations(context: str) -> float:
        return float(server.call("GET", f"/applications/learner/policy?context={context}")["observations"])

    assert observations("user%2058") > observations("nobody")
    until(lambda: observations("user%2059") == observations("nobody"))
    for missing in ("user%2059", "", "never"):
        answer = server.call("DELETE", f"/applications/learner/contexts?context={missing}", status=404)
        assert answer["error"] == "not_found"
    server.call("GET", "/applications/learner/contexts?limit=0", status=400)
