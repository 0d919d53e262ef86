"""``clipper apply``, ``export`` and ``start --config`` as a user runs them, on real servers."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from clipper.api.events import Step
from clipper.api.schemas import Model
from clipper.cli.process import running
from clipper.client import Clipper
from clipper.errors import ClipperError
from tests.cli.commands import CLIPPER, MODEL, Command, commands, stop_server, succeed
from tests.waiting import until

pytestmark = pytest.mark.long

KEY = "a-key-for-tests-" + "k" * 40

POLICY = """
from clipper.learning.policies.policy import Choice, Policy

class First(Policy):
    def select(self, models, totals, query, random):
        return Choice(models[:1], (1.0,))
"""
FILE = """
server: {query_port: 0, management_port: 0, grpc_port: off, store: "sqlite:learned.sqlite3"}
models:
  sum: {model: "model:Sum", folder: code, sample: [1, 2, 3, 4]}
  more: {model: "model:Sum", folder: code, data: offset.txt}
applications:
  app: {links: [sum], slo_ms: 20000, default_output: -1}
  own: {links: [more], slo_ms: 20000, policy: "own:First", folder: code}
keys:
  web: {from_env: WEB_KEY, applications: [app]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "code").mkdir()
    (folder / "code" / "model.py").write_text(MODEL)
    (folder / "code" / "own.py").write_text(POLICY)
    (folder / "offset.txt").write_text("100")
    (folder / "clipper.yaml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def clipper(folder: Path) -> Iterator[Command]:
    """Commands to a server that ``start --config`` has started. It runs in another folder than that of the file."""
    home = folder / "home"
    run = commands(home, folder.parent, WEB_KEY=KEY)
    started = run("start", "--config", str(folder / "clipper.yaml"))
    try:
        assert started.returncode == 0, started.stderr
        assert "clipper.yaml: 5 done" in started.stdout
        yield run
    finally:
        stop_server(home)


@pytest.fixture
def client(clipper: Command, folder: Path) -> Iterator[Clipper]:
    with Clipper.connect(home=folder / "home", api_key=KEY) as client:
        yield client


def without_keys(exported: str) -> str:
    return "".join(line for line in exported.splitlines(keepends=True) if not line.startswith("# The keys"))


def models_of(client: Clipper) -> list[Model]:
    """All models, but for the sizes of batches and types of outputs, which are learned meanwhile."""
    return [
        replace(
            model,
            versions=tuple(
                replace(
                    version,
                    output_type=None,
                    replicas=tuple(replace(replica, batch_limit=None) for replica in version.replicas),
                )
                for version in model.versions
            ),
        )
        for model in client.models()
    ]


def key_names(client: Clipper) -> list[str]:
    found = client.keys()
    return [key.name for key in found]


def own_output(client: Clipper) -> object:
    """The answer of own; None while a busy machine imports its policy, for which a change waits for some seconds."""
    with suppress(ClipperError):
        return client.predict("own", [1, 2, 3, 4]).output
    return None


def apply(clipper: Command, folder: Path, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (folder / "other.yaml").write_text(text)
    return clipper("apply", str(folder / "other.yaml"), *options)


@pytest.fixture
def as_it_was(clipper: Command, folder: Path) -> Iterator[None]:
    """Afterwards the server has again what the file says."""
    yield
    succeed(clipper("apply", str(folder / "clipper.yaml"), "--prune"))


def test_start_takes_the_servers_settings_and_applies_the_rest(client: Clipper, folder: Path) -> None:
    assert client.predict("app", [1, 2, 3, 4]).output == 10.0
    until(lambda: own_output(client) == 110.0)
    assert client.status().grpc_address is None
    assert (folder / "learned.sqlite3").exists()


def test_a_file_that_is_applied_again_changes_nothing(clipper: Command, client: Clipper, folder: Path) -> None:
    def state() -> tuple[list[Model], list[Step]]:
        # Workers are told of types of outputs, which are learned meanwhile.
        return models_of(client), [step for step in client.history() if "changed: models" not in step.text]

    before = state()
    assert succeed(clipper("apply", str(folder / "clipper.yaml"), "--prune")).endswith("clipper.yaml: nothing to do\n")
    assert state() == before


def test_the_settings_of_the_command_line_come_before_the_files(clipper: Command, folder: Path) -> None:
    again = clipper("start", "--config", str(folder / "clipper.yaml"), "--workers", "0")
    assert again.returncode == 2 and "--workers" in again.stderr


def test_what_is_exported_changes_nothing(clipper: Command, folder: Path, client: Clipper) -> None:
    exported = succeed(clipper("export"))
    schema = Path(exported.splitlines()[0].removeprefix("# yaml-language-server: $schema="))
    assert json.loads(schema.read_text())["title"] == "clipper.yaml"
    assert "# The keys web are left out" in exported and KEY not in exported
    assert succeed(apply(clipper, folder, exported, "--prune")).endswith("other.yaml: nothing to do\n")
    assert json.loads(succeed(clipper("export", "--json"))) == yaml.safe_load(exported)
    assert key_names(client) == ["web"]


def test_dry_run_and_diff_show_and_do_nothing(clipper: Command, folder: Path) -> None:
    before = succeed(clipper("export"))
    changed = FILE.replace("slo_ms: 20000, default_output", "slo_ms: 10000, default_output")
    changed = changed.replace("data: offset.txt", "cpus: 1")
    told = succeed(apply(clipper, folder, changed, "--dry-run"))
    assert "application app: changes it (slo_ms)" in told and "nothing was done: 2 steps to do" in told
    told = succeed(apply(clipper, folder, changed, "--diff"))
    assert "  slo_ms: 20000.0 → 10000.0\n" in told and "  cpus: none → 1.0\n" in told
    assert succeed(clipper("export")) == before


def test_a_dry_run_checks_as_the_server_would(clipper: Command, folder: Path) -> None:
    before = succeed(clipper("export"))
    lines = FILE.splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.strip().startswith("app:"))
    for new, why in (("policy: exp33", "exp33"), ("policy: linucb", "features"), ("loss: abs", "abs")):
        wrong = FILE.replace("default_output: -1", f"default_output: -1, {new}")
        assert wrong != FILE
        for options in (("--dry-run",), ("--diff", "--exit-code"), ()):
            refused = apply(clipper, folder, wrong, *options)
            assert refused.returncode == 1, refused.stdout
            assert f"other.yaml:{line}" in refused.stderr and why in refused.stderr
    assert succeed(clipper("export")) == before


def test_drift_has_a_status_of_its_own(clipper: Command, folder: Path) -> None:
    assert apply(clipper, folder, FILE, "--dry-run", "--exit-code").returncode == 0
    changed = FILE.replace("default_output: -1", "default_output: -2")
    assert apply(clipper, folder, changed, "--dry-run", "--exit-code").returncode == 2
    assert apply(clipper, folder, changed, "--diff", "--exit-code").returncode == 2
    assert apply(clipper, folder, changed, "--dry-run").returncode == 0
    assert apply(clipper, folder, changed, "--exit-code").returncode == 2


@pytest.mark.usefixtures("as_it_was")
def test_a_change_is_applied_while_the_rest_stays(clipper: Command, client: Clipper, folder: Path) -> None:
    changed = FILE.replace(", sample", ", data: offset.txt, replicas: 2, sample")
    changed = changed.replace("default_output: -1", "default_output: -2")
    told = succeed(apply(clipper, folder, changed))
    assert "model sum: deploys a version (artifact, data)" in told and "2 done" in told
    assert client.predict("app", [1, 2, 3, 4]).output == 110.0
    assert client.application("app").default_output == -2
    assert client.model("more").current == "1"


@pytest.mark.usefixtures("as_it_was")
def test_a_model_that_fails_leaves_its_applications_and_the_rest_is_done(
    clipper: Command, client: Clipper, folder: Path
) -> None:
    changed = FILE.replace("models:", 'models:\n  bad: {model: "model:Broken", folder: code}')
    changed = changed.replace("app: {links: [sum]", "app: {links: [sum, bad]").replace("data: offset.txt", "cpus: 1")
    changed = changed.replace("  own:", "  own: {links: [more], slo_ms: 20000}\n  new:")
    failed = apply(clipper, folder, changed.replace("  own: {", "  own2: {"), "--prune")
    assert failed.returncode == 1
    assert "failed: model bad bad:1 cannot start" in failed.stdout and "another planet" in failed.stdout
    assert "skipped: application app stays as it is, because model bad failed" in failed.stdout
    assert "done: application new is created" in failed.stdout
    assert "skipped: application own stays, because not all of the file could be done" in failed.stdout
    assert [link.model for link in client.application("app").links] == ["sum"]
    assert client.model("more").current == "2" and client.model("more").previous == "1"


@pytest.mark.usefixtures("as_it_was")
def test_prune_deletes_what_the_file_does_not_name(clipper: Command, client: Clipper, folder: Path) -> None:
    text = "models: {sum: {model: 'model:Sum', folder: code, sample: [1, 2, 3, 4]}}\napplications: {}\n"
    told = succeed(apply(clipper, folder, text))
    assert "not in the file, and stays: application app, application own, model more" in told
    assert len(client.applications()) == 2
    succeed(apply(clipper, folder, text, "--prune"))
    assert client.applications() == [] and [model.name for model in client.models()] == ["sum"]
    assert key_names(client) == ["web"]


def test_all_faults_are_told_with_their_places_and_nothing_is_done(
    clipper: Command, client: Clipper, folder: Path
) -> None:
    before = models_of(client)
    text = "models:\n  a: {model: nowhere.pkl}\n  b: {model: 'model:Absent', folder: code}\n"
    failed = apply(clipper, folder, text)
    assert failed.returncode == 1
    assert "other.yaml:2:3: models.a: the model file" in failed.stderr
    assert "other.yaml:3:3: models.b: " in failed.stderr and "does not define 'Absent'" in failed.stderr
    failed = clipper("apply", str(folder / "clipper.yaml"), WEB_KEY="")
    assert "clipper.yaml:10:19: keys.web.from_env: the environment has no variable WEB_KEY" in failed.stderr
    assert "cannot be read" in clipper("apply", str(folder / "absent.yaml")).stderr
    assert models_of(client) == before


def test_a_key_of_the_environment_opens_the_applications_that_it_is_for(clipper: Command, folder: Path) -> None:
    renewed = KEY.replace("k", "n")
    succeed(clipper("apply", str(folder / "clipper.yaml"), WEB_KEY=renewed))
    try:
        with Clipper.connect(home=folder / "home", api_key=renewed) as client:
            client.change_application("app", require_key=True)
            assert client.predict("app", [1, 2, 3, 4]).output == 10.0
    finally:
        succeed(clipper("apply", str(folder / "clipper.yaml")))
    with Clipper.connect(home=folder / "home", api_key=KEY) as client:
        assert client.predict("app", [1, 2, 3, 4]).output == 10.0


def test_two_that_apply_at_once_both_end_well(clipper: Command, client: Clipper, folder: Path) -> None:
    (folder / "twice.yaml").write_text("models: {twice: {model: 'model:Sum', folder: code}}")
    command = [*CLIPPER, "apply", str(folder / "twice.yaml"), "--home", str(folder / "home")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    told = [one.communicate(timeout=200)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert client.model("twice").current in ("1", "2")
    assert "nothing to do" in succeed(clipper("apply", str(folder / "twice.yaml")))
    client.delete_model("twice")


def test_the_result_is_json_on_request(clipper: Command, folder: Path) -> None:
    result = json.loads(succeed(clipper("apply", str(folder / "clipper.yaml"), "--json")))
    assert result == {"plan": [], "obstacles": [], "unnamed": [], "outcomes": []}


def test_an_export_makes_the_same_on_another_server_with_its_artifacts(
    clipper: Command, client: Clipper, folder: Path, tmp_path: Path
) -> None:
    assert running(folder / "home") is not None
    exported = tmp_path / "exported.yaml"
    exported.write_text(succeed(clipper("export")))
    other = tmp_path / "home"
    try:
        succeed(clipper("start", "--home", str(other), "--query-port", "0", "--management-port", "0"))
        refused = clipper("apply", str(exported), "--home", str(other))
        assert "neither the server has the artifact" in refused.stderr
        exported.write_text(succeed(clipper("export", "--artifacts", str(tmp_path / "artifacts"))))
        assert "4 done" in succeed(clipper("apply", str(exported), "--home", str(other)))
        assert succeed(clipper("export", "--home", str(other))) == without_keys(exported.read_text())
        with Clipper.connect(home=other) as there:
            until(lambda: own_output(there) == 110.0)
    finally:
        stop_server(other)
