"""Containers of the image: as the compose file and the manifests have them, and as clusters change them."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml

from tests.certificates import Authority
from tests.deploy.image import COMMIT, FREE_PORTS, OF_THE_CLUSTER, build, running
from tests.docker_daemon import DockerDaemon
from tests.redis_server import RedisServer
from tests.waiting import TIMEOUT_S, until
from tests.wheels import ROOT

pytestmark = [pytest.mark.long, pytest.mark.machine]

COMPOSE = yaml.safe_load((ROOT / "deploy/docker/compose.yaml").read_text())["services"]["clipper"]
POD = yaml.safe_load((ROOT / "deploy/kubernetes/deployment.yaml").read_text())["spec"]["template"]["spec"]
CONFIG = {name: (ROOT / "deploy/kubernetes" / name).read_text() for name in ("clipper.yaml", "example.py")}
HOME = "/var/lib/clipper"
LIMITS = {"nofile": resource.RLIMIT_NOFILE}
MODEL = "def total(inputs):\n    return [float(row.sum()) for row in inputs]\n"


@pytest.fixture(scope="module")
def client(docker_daemon: DockerDaemon) -> Iterator[docker.DockerClient]:
    """Of a dockerd that has the image."""
    with closing(docker_daemon.client()) as client:
        build(client)
        yield client


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        server.start()
        yield server


def health(client: docker.DockerClient) -> list[str]:
    """The image's health check."""
    kind, *words = client.images.get("clipper").attrs["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    return list(words)


def test_as_the_compose_file_has_it(client: docker.DockerClient, tmp_path: Path, redis: RedisServer) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "sums.py").write_text(MODEL)
    models.chmod(0o755)
    # The user of the tests may have lower hard limits.
    limits = {name: min(most, resource.getrlimit(LIMITS[name])[1]) for name, most in COMPOSE["ulimits"].items()}
    options = {
        "read_only": COMPOSE["read_only"],
        "tmpfs": dict.fromkeys(COMPOSE["tmpfs"], ""),
        "cap_drop": COMPOSE["cap_drop"],
        "security_opt": COMPOSE["security_opt"],
        "ulimits": [docker.types.Ulimit(name=name, soft=most, hard=most) for name, most in limits.items()],
        "environment": dict.fromkeys(COMPOSE["environment"], redis.url),
        "volumes": {str(models): {"bind": "/models", "mode": "ro"}},
    }
    assert COMPOSE["volumes"] == [f"home:{HOME}"] and list(COMPOSE["environment"]) == ["CLIPPER_STORE"]
    with running(client, [*COMPOSE["command"], *FREE_PORTS], **options) as clipper:
        status = clipper.wait_until_it_answers()
        assert clipper.run("python3", "-c", "import os; print(os.getuid(), os.getgid())") == "10001 0\n"
        assert clipper.run("clipper", "--version").endswith(f" (pure Python, commit {COMMIT})\n")
        assert status["home"] == f"{HOME}/home" and status["grpc_address"] is not None
        clipper.run("clipper", "deploy", "sum", "sums:total", "--input-type", "doubles", workdir="/models")
        clipper.run("clipper", "app", "create", "sum", "--model", "sum", "--slo-ms", "20000", "--policy", "exp3")
        answer = httpx.post(f"{status['query_url']}/sum/predict", json={"input": [1, 2.5]}, timeout=TIMEOUT_S).json()
        assert answer["output"] == 3.5
        # Redis holds the state that feedback teaches, so the container does not.
        feedback = {"query_id": answer["query_id"], "label": 3.5}
        observed = httpx.post(f"{status['query_url']}/sum/observe", json=feedback, timeout=TIMEOUT_S)
        assert observed.json() == {"observed": True, "duplicate": False}
        clipper.run(*health(client))
        # Prometheus gets in by the service's name, without a token.
        metrics = httpx.get(f"{status['management_url']}/metrics", headers={"Host": "clipper"}, timeout=TIMEOUT_S)
        assert "clipper_ready 1.0" in metrics.text
        # It waits as the file says, drains, and does not count as failed: on-failure leaves it stopped.
        assert clipper.stop() == 0 and COMPOSE["restart"] == "on-failure"
        assert "stopping in 5 s" in clipper.log and clipper.log.rstrip().endswith("stopped")


def test_as_the_pod_has_it_with_a_user_that_the_cluster_chooses(client: docker.DockerClient, tmp_path: Path) -> None:
    serves, applies = POD["containers"]
    assert POD["shareProcessNamespace"] and {volume["name"] for volume in POD["volumes"]} == {"home", "tmp", "config"}
    folders = {name: tmp_path / name for name in ("home", "tmp", "config")}
    for folder in folders.values():
        folder.mkdir()
        folder.chmod(0o2777)  # as an emptyDir
    # As kubelet mounts a ConfigMap: the files are links into a folder that is replaced as a whole.
    (folders["config"] / "..2026_01_01").mkdir()
    (folders["config"] / "..data").symlink_to("..2026_01_01")
    for name, text in CONFIG.items():
        (folders["config"] / "..2026_01_01" / name).write_text(text)
        (folders["config"] / name).symlink_to(f"..data/{name}")

    def options(container: dict[str, Any]) -> dict[str, Any]:
        own = container["securityContext"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        return {
            "user": f"{OF_THE_CLUSTER}:0",
            "read_only": own["readOnlyRootFilesystem"],
            "cap_drop": own["capabilities"]["drop"],
            "security_opt": [] if own["allowPrivilegeEscalation"] else ["no-new-privileges:true"],
            "volumes": {str(folders[name]): {"bind": path, "mode": "rw"} for name, path in mounts.items()},
        }

    with ExitStack() as stack:
        clipper = stack.enter_context(running(client, [*serves["args"], *FREE_PORTS], **options(serves)))
        beside = {"entrypoint": applies["command"], "pid_mode": f"container:{clipper.container.id}"}
        apply = stack.enter_context(running(client, applies["args"], **beside, **options(applies)))
        status = clipper.wait_until_it_answers()
        probe = serves["readinessProbe"]["httpGet"]["path"]

        def is_ready() -> bool:
            return httpx.get(status["query_url"] + probe, timeout=TIMEOUT_S).status_code == 200

        until(is_ready, failed=apply.why_it_ended)
        live = httpx.get(status["query_url"] + serves["livenessProbe"]["httpGet"]["path"], timeout=TIMEOUT_S)
        assert live.status_code == 200
        answer = httpx.post(f"{status['query_url']}/example/predict", json={"input": [1, 2]}, timeout=TIMEOUT_S)
        assert answer.json()["output"] == 3
        # It does nothing more, and goes at once when it is told to.
        until(lambda: "sleep" in apply.run("sh", "-c", "cat /proc/[0-9]*/comm 2>&1; :"), failed=apply.why_it_ended)
        apply.container.stop(timeout=100)
        # The readiness probe fails while the pod's queries still come.
        clipper.container.kill("SIGTERM")
        until(lambda: not is_ready())
        answer = httpx.post(f"{status['query_url']}/example/predict", json={"input": [1, 3]}, timeout=TIMEOUT_S)
        assert answer.json()["output"] == 4
        assert clipper.stop() == 0  # told twice, it does not wait


def test_a_home_that_belongs_to_another_user(client: docker.DockerClient, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o755)
    options = {"volumes": {str(volume): {"bind": HOME, "mode": "rw"}}}
    with running(client, ["start", "--foreground", *FREE_PORTS], **options) as clipper:
        assert clipper.container.wait()["StatusCode"] == 1
        assert f"home {HOME}/home cannot be used" in clipper.log and "user 10001" in clipper.log


def test_the_health_check_goes_through_tls(client: docker.DockerClient, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    pair.key.chmod(0o644)
    tmp_path.chmod(0o755)
    options = {"volumes": {str(tmp_path): {"bind": "/tls", "mode": "ro"}}}
    files = [f"--tls-cert=/tls/{pair.certificate.name}", f"--tls-key=/tls/{pair.key.name}"]
    with running(client, ["start", "--foreground", *files, *FREE_PORTS], **options) as clipper:
        assert clipper.wait_until_it_answers()["query_url"].startswith("https://")
        clipper.run(*health(client))
        # A second of the same home does not start beside it.
        code, told = clipper.container.exec_run(["clipper", "start", "--foreground", *FREE_PORTS])
        assert code == 0 and b"is running already" in told
        # Told to stop from inside, it ends with 0 as well.
        # The command ends with the container that it runs in.
        clipper.container.exec_run(["clipper", "stop"], detach=True)
        assert clipper.container.wait()["StatusCode"] == 0


def test_told_to_stop_while_it_starts_it_ends(client: docker.DockerClient) -> None:
    with running(client, ["start", "--foreground", *FREE_PORTS]) as clipper:
        # Linux drops a signal for process 1 that comes before that process has said what it does with it.
        until(lambda: len(clipper.container.top()["Processes"]) > 1, failed=clipper.why_it_ended)
        clipper.container.kill("SIGTERM")
        assert clipper.container.wait()["StatusCode"] in (0, 143)
