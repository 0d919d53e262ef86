"""Plans that are run by the Python client, against operations in memory: many models, failures, changes meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.cli.manifest.manifest import Manifest, read_manifest
from clipper.cli.manifest.plan import Packed, plan
from clipper.cli.manifest.steps import Plan
from clipper.cli.manifest_facts import ask_actual, pack_all
from clipper.cli.manifest_run import Outcome, Run
from clipper.client import Clipper
from tests.conftest import Api

CODE = "def predict(inputs):\n    return [0.0 for _ in inputs]\n"


@pytest.fixture
def clipper(api: Api) -> Iterator[Clipper]:
    with Clipper.connect(home=api.home) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "model.py").write_text(CODE)
    return folder


def facts(clipper: Clipper, folder: Path, text: str) -> tuple[Manifest, Packed]:
    wanted, faults = read_manifest(text.encode(), folder, {"WEB": "w" * 40})
    assert faults == []
    packed, faults = pack_all(wanted, folder, clipper)
    assert faults == []
    return wanted, packed


def apply(
    clipper: Clipper, folder: Path, text: str, *, prune: bool = False, told: list[str] | None = None
) -> list[Outcome]:
    wanted, packed = facts(clipper, folder, text)
    found = plan(wanted, packed, ask_actual(clipper), prune=prune)
    told = [] if told is None else told
    return list(Run(clipper, wanted, packed, folder).outcomes(found, told.append))


def summary(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(outcome.subject, outcome.status) for outcome in outcomes]


def models(*names: str) -> str:
    return "models:\n" + "".join(f"  {name}: {{model: 'model:predict', description: {name}}}\n" for name in names)


def test_of_a_hundred_models_one_fails_and_the_rest_is_done(clipper: Clipper, folder: Path) -> None:
    names = [f"m{number}" for number in range(99)]
    text = models("broken", *names) + (
        "applications:\n  good: {links: [m1, m2], half_life: 1000}\n  bad: {links: [m1, broken], half_life: 1000}\n"
    )
    told: list[str] = []
    outcomes = apply(clipper, folder, text, prune=True, told=told)
    assert summary(outcomes) == [
        ("model broken", "failed"),
        *((f"model {name}", "done") for name in names),
        ("application good", "done"),
        ("application bad", "skipped"),
    ]
    assert "broken:1 cannot start: its process exited with 1" in outcomes[0].text
    assert outcomes[-1].text == "stays as it is, because model broken failed"
    assert any(text.startswith("model m98: starting m98:1") for text in told)
    # The second run leaves finished parts alone, and tries failed parts again.
    assert summary(apply(clipper, folder, text)) == [("model broken", "failed"), ("application bad", "skipped")]


def test_the_same_again_asks_the_server_for_nothing(api: Api, clipper: Clipper, folder: Path) -> None:
    text = models("a", "b") + "applications: {app: {links: [a], half_life: 1000}}\nkeys: {web: {from_env: WEB}}\n"
    assert len(apply(clipper, folder, text)) == 4
    assert apply(clipper, folder, text, prune=True) == []
    assert len(api.operations.deployments) == 2


def test_nothing_is_deleted_if_not_all_was_done(clipper: Clipper, folder: Path) -> None:
    apply(clipper, folder, models("old"))
    outcomes = apply(clipper, folder, models("broken", "new"), prune=True)
    assert summary(outcomes) == [("model broken", "failed"), ("model new", "done"), ("model old", "skipped")]
    assert "old" in [model.name for model in clipper.models()]
    assert summary(apply(clipper, folder, models("new"), prune=True))[-1] == ("model old", "done")
    assert "old" not in [model.name for model in clipper.models()]


def stale(clipper: Clipper, folder: Path, text: str) -> tuple[Run, Plan]:
    wanted, packed = facts(clipper, folder, text)
    return Run(clipper, wanted, packed, folder), plan(wanted, packed, ask_actual(clipper))


def test_what_somebody_else_has_deployed_meanwhile_is_not_deployed_again(
    api: Api, clipper: Clipper, folder: Path
) -> None:
    run, found = stale(clipper, folder, models("a"))
    apply(clipper, folder, models("a"))
    (outcome,) = run.outcomes(found, lambda _: None)
    assert (outcome.status, outcome.text) == ("done", "matches the file already")
    assert len(api.operations.deployments) == 1


def test_a_name_that_somebody_took_for_another_model_is_a_failure(api: Api, clipper: Clipper, folder: Path) -> None:
    text = "models: {a: {model: 'model:predict', version: new, cpus: 1}}"
    run, found = stale(clipper, folder, text)
    apply(clipper, folder, text.replace("cpus: 1", "cpus: 2"))
    (outcome,) = run.outcomes(found, lambda _: None)
    assert outcome.status == "failed" and "version new exists and is another (cpus: 2.0 → 1.0)" in outcome.text


def test_a_model_whose_file_changes_after_the_plan_is_not_deployed(api: Api, clipper: Clipper, folder: Path) -> None:
    run, found = stale(clipper, folder, models("a"))
    (folder / "model.py").write_text(CODE + "# changed\n")
    (outcome,) = run.outcomes(found, lambda _: None)
    assert outcome.status == "failed" and "has changed since the plan was made" in outcome.text
    assert api.operations.deployments == []


def test_a_version_that_cannot_start_keeps_the_models_other_versions_back(clipper: Clipper, folder: Path) -> None:
    text = """
models:
  broken:
    current: two
    versions:
      one: {model: "model:predict"}
      two: {model: "model:predict", cpus: 1}
"""
    assert summary(apply(clipper, folder, text)) == [("model broken:one", "failed"), ("model broken:two", "skipped")]
    assert list(clipper.deployments("broken")) == ["one"]


def test_all_models_that_cannot_be_packed_are_told_at_once(clipper: Clipper, folder: Path) -> None:
    text = models("good") + "  a: {model: nowhere.pkl}\n  b: {model: 'model:absent'}\n"
    text += "  c: {artifact: {sha256: " + "0" * 64 + ", loader: file, target: x}}\n"
    text += "applications: {app: {links: [good], policy: 'own:Policy'}}\n"
    wanted, _ = read_manifest(text.encode(), folder, {})
    _, faults = pack_all(wanted, folder, clipper)
    assert [fault.path for fault in faults] == ["models.a", "models.b", "models.c", "applications.app"]
