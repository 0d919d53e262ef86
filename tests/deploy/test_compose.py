"""deploy/docker/compose.yaml, brought up by Debian's docker compose: Clipper, Redis and Prometheus together."""

import json
import os
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml

from tests.asking import Asking
from tests.deploy.image import build
from tests.deploy.prometheus import programs, unpacked
from tests.docker_base import shared_libraries
from tests.docker_daemon import DockerDaemon
from tests.waiting import TIMEOUT_S, until
from tests.wheels import ROOT

FILE = ROOT / "deploy" / "docker" / "compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
MODEL = "def total(inputs):\n    return [float(row.sum()) for row in inputs]\n"
# Only what a machine that runs other tests needs otherwise: ports that are free, a folder with a model, and no more
# descriptors than it may give.
OVERRIDE = """
services:
  clipper:
    ports: !override ["127.0.0.1::1337", "127.0.0.1::1338"]
    volumes: ["{models}:/models:ro"]
    ulimits: {{nofile: {descriptors}}}
  prometheus:
    ports: !override ["127.0.0.1::9090"]
"""

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900), pytest.mark.machine]


class Compose:
    """``docker compose`` on these files, in a dockerd of the tests."""

    def __init__(self, daemon: DockerDaemon, override: Path) -> None:
        self._environ = {**os.environ, **daemon.environ}
        program = unpacked("docker-compose") / "usr/libexec/docker/cli-plugins/docker-compose"
        self._command = [str(program), "-f", str(FILE), "-f", str(override)]

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [*self._command, *words], env=self._environ, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def url(self, service: str, port: int) -> str:
        return f"http://{self('port', service, str(port)).strip()}"


def import_programs(client: docker.DockerClient, image: str, found: dict[str, Path], changes: list[str]) -> None:
    """Make an image of programs of this machine, under the name that a registry has for their own image."""
    files = {f"usr/bin/{name}": path.resolve() for name, path in found.items()} | {
        "usr/bin/sh": Path("/bin/sh").resolve()
    }
    files |= {str(path)[1:]: path.resolve() for path in shared_libraries(files.values())}
    path = Path(os.environ["TMPDIR"]) / "image.tar"
    with tarfile.open(path, "w") as tar:
        for name, source in files.items():
            tar.add(source, name)
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        for name in ("tmp", "data", "prometheus"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(folder)
    repository, _, tag = image.partition(":")
    client.api.import_image_from_file(str(path), repository, tag, changes=changes)


@pytest.fixture
def compose(docker_daemon: DockerDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    models = tmp_path / "models"
    models.mkdir()
    (models / "sums.py").write_text(MODEL)
    for folder in (tmp_path, models):
        folder.chmod(0o755)
    with closing(docker_daemon.client()) as client:
        build(client)
        redis = {name: Path(str(shutil.which(name))) for name in ("redis-server", "redis-cli")}
        import_programs(client, SERVICES["redis"]["image"], redis, ["WORKDIR /data"])
        options = '["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]'
        monitor = ['ENTRYPOINT ["prometheus"]', f"CMD {options}"]
        import_programs(client, SERVICES["prometheus"]["image"], {"prometheus": programs() / "prometheus"}, monitor)
    descriptors = min(SERVICES["clipper"]["ulimits"]["nofile"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    (tmp_path / "override.yaml").write_text(OVERRIDE.format(models=models, descriptors=descriptors))
    compose = Compose(docker_daemon, tmp_path / "override.yaml")
    yield compose
    compose("down", "--volumes")


def test_the_three_come_up_and_know_each_other(compose: Compose, tmp_path: Path) -> None:
    override = tmp_path / "override.yaml"
    compose("up", "--detach", "--wait")
    compose(
        "exec", "-T", "-w", "/models", "clipper", "clipper", "deploy", "sum", "sums:total", "--input-type", "doubles"
    )
    made = ("app", "create", "sum", "--model", "sum", "--slo-ms", "20000", "--policy", "exp3")
    compose("exec", "-T", "clipper", "clipper", *made)
    queries = compose.url("clipper", 1337)

    def post(path: str, body: dict[str, Any]) -> Any:
        return httpx.post(f"{queries}/sum/{path}", json=body, timeout=TIMEOUT_S).json()

    answer = post("predict", {"input": [1, 2.5]})
    assert answer["output"] == 3.5
    told = post("observe", {"query_id": answer["query_id"], "label": 3.5})
    assert "observed" in told, told
    # Redis holds the state that feedback has taught.
    assert "sum" in compose("exec", "-T", "redis", "redis-cli", "--scan")
    # Prometheus finds Clipper by its service's name, and has read the rules.
    monitor = compose.url("prometheus", 9090)

    def ready() -> list[Any]:
        found = httpx.get(f"{monitor}/api/v1/query", params={"query": "clipper_ready"}, timeout=TIMEOUT_S).json()
        return [one["value"][1] for one in found["data"]["result"]]

    until(lambda: ready() == ["1"])
    rules = httpx.get(f"{monitor}/api/v1/rules", timeout=TIMEOUT_S).json()
    assert rules["data"]["groups"]

    # It starts again in its process, so that Docker sees nothing of it; its options are the file's.
    def status() -> Any:
        return json.loads(compose("exec", "-T", "clipper", "clipper", "status", "--json"))

    def containers() -> Any:
        return compose("ps", "--quiet", "clipper").strip()

    before, container = status(), containers()
    with Asking(f"{queries}/sum/predict", 2) as asking:
        compose("exec", "-T", "clipper", "clipper", "restart")
        assert status()["pid"] == before["pid"] and status()["uptime_s"] < before["uptime_s"]
    assert containers() == container and {type(one) for one in asking.answers} == {float}
    assert status()["options"] == before["options"]
    refused = compose("exec", "-T", "clipper", "sh", "-c", "! clipper restart --workers 2 2>&1")
    assert "clipper start --foreground, whose command line has its options: change them there" in refused
    # With other options in the file it is another container, on the same home.
    command = [*SERVICES["clipper"]["command"], "--workers=2"]
    override.write_text(
        override.read_text().replace("  clipper:\n", f"  clipper:\n    command: !override {json.dumps(command)}\n")
    )
    compose("up", "--detach", "--wait")
    assert containers() != container and len(status()["workers"]) == 2
    queries = compose.url("clipper", 1337)
    until(lambda: post("predict", {"input": [1, 2]}).get("output") == 3.0)

    # A supervisor that is killed is started again, with all that it had.
    compose("kill", "clipper")
    compose("up", "--detach", "--wait")
    queries = compose.url("clipper", 1337)
    until(lambda: post("predict", {"input": [1, 3]}).get("output") == 4.0)
    # Told to stop, it ends with 0 and stays so.
    compose("stop", "clipper")
    (left,) = [json.loads(line) for line in compose("ps", "--all", "--format", "json", "clipper").splitlines()]
    assert (left["State"], left["ExitCode"]) == ("exited", 0)
