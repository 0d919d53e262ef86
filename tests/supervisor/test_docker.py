"""Models in Docker behind a real server: deployed as a user does, asked as an application does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from clipper.client import Clipper
from clipper.errors import ClipperError, ContainerFailed, InvalidArgument
from clipper.settings.replicas import ReplicaRange
from clipper.settings.secret_files import SecretFiles
from clipper.supervisor.folders import open_home
from clipper.supervisor.managers.docker.options import HOME_LABEL, IMAGE_HOME_LABEL
from tests.docker_daemon import BASE_IMAGE, DockerDaemon, running_daemon
from tests.supervisor.live_server import APP, Server
from tests.supervisor.test_secrets import LOOKS, SECRET, VARIABLE, holders, holds
from tests.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.machine]

SUM = "def predict(inputs):\n    return [float(row.sum()) for row in inputs]\n"


@pytest.fixture
def daemon(docker_daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch) -> DockerDaemon:
    monkeypatch.setenv("DOCKER_HOST", docker_daemon.host)
    return docker_daemon


@pytest.fixture
def server(tmp_path: Path, daemon: DockerDaemon, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Over a unix socket, or how the test says."""
    transport = ("--docker-transport", getattr(request, "param", "unix"))
    server = Server(tmp_path / "home", "--docker-base-image", BASE_IMAGE, "--docker-network", "host", *transport)
    yield server.start()
    server.clean_up()
    for container in owned(daemon, server)[0]:
        container.remove(force=True)


def owned(daemon: DockerDaemon, server: Server) -> tuple[list[Any], list[Any]]:
    """The containers and images of a server's home."""

    def found() -> tuple[list[Any], list[Any]] | None:
        with suppress(docker.errors.NotFound):  # one went between the list and a look at it
            containers = client.containers.list(all=True, filters={"label": f"{HOME_LABEL}={server.home}"})
            return containers, client.images.list(filters={"label": f"{IMAGE_HOME_LABEL}={server.home}"})
        return None

    with closing(daemon.client()) as client:
        return until(found)


@pytest.mark.parametrize("server", ["tcp"], indirect=True)
def test_from_the_command_line_to_the_next_server(tmp_path: Path, daemon: DockerDaemon, server: Server) -> None:
    (tmp_path / "sums.py").write_text(SUM)
    deploy = ["deploy", "sum", "sums:predict", "--input-type", "float64[2]", "--replicas", "2", "--memory", "256m"]
    run = "import sys; from clipper.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", run, *deploy, "--manager", "docker", "--home", str(server.home)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Clipper.connect(home=server.home) as clipper:
        clipper.create_application("sums", model="sum", slo_ms=20_000)
        assert server.predict("sums", [1.5, 2])["output"] == 3.5
        assert any("listening on" in line for lines in clipper.logs("sum").lines.values() for line in lines)
    pids = server.ready_pids("sum")
    # The next one goes on with both.
    server.kill()
    server.start()
    assert server.predict("sums", [2.5, 2])["output"] == 4.5
    assert len(pids) == 2 and server.ready_pids("sum") == pids
    tokens = [path.read_text() for path in open_home(server.home).sockets.glob("c*/token")]
    told = done.stdout + done.stderr + "".join(path.read_text() for path in server.home.glob("logs/*"))
    assert len(tokens) == 2 and not any(token in told for token in tokens)
    assert server.stop() == 0
    assert owned(daemon, server)[0] == []


def test_a_version_that_fails_leaves_the_earlier_one_running_as_a_process(
    tmp_path: Path, daemon: DockerDaemon, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sums.py").write_text(SUM)
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such weights')\ndef predict(inputs): ...\n")
    monkeypatch.chdir(tmp_path)
    with Clipper.connect(home=server.home) as clipper:
        clipper.deploy("sum", "sums:predict", input_type="float64[2]")
        clipper.create_application("sums", model="sum", slo_ms=20_000)
        with pytest.raises(ContainerFailed) as raised:
            clipper.deploy("sum", "broken:predict", input_type="float64[2]", manager="docker")
        assert any("no such weights" in line for line in raised.value.log_tail)
        assert server.predict("sums", [1.5, 2])["output"] == 3.5
        # In Docker, beside it and then in its place.
        clipper.deploy("sum", "sums:predict", input_type="float64[2]", manager="docker")
        assert server.predict("sums", [2.5, 2])["output"] == 4.5
        clipper.delete_application("sums")
        clipper.delete_model("sum")
    until(lambda: owned(daemon, server) == ([], []))


def test_variables_and_secrets_are_in_their_own_containers_alone(daemon: DockerDaemon, server: Server) -> None:
    secrets = SecretFiles(server.home, {})
    secrets.set("db-password", SECRET)
    own: Any = {"env": {"LEVEL": VARIABLE}, "secrets": ["PASSWORD=db-password"]}
    for model, settings in (("m", own), ("other", {})):
        fields = {"input_type": "string", "cache": False, "manager": "docker", **settings}
        assert server.deploy(model, LOOKS, **fields)["state"] == "ready"
        server.call(
            "POST", "/applications", {**APP, "name": model, "input_type": "string", "links": [{"model": model}]}
        )
    seen = "os.environ['PASSWORD'], os.environ['LEVEL']"
    assert server.predict("m", seen)["output"] == str((SECRET, VARIABLE))
    # Another model sees the processes of its own container, and no others.
    reads = "''.join(open(f'/proc/{pid}/environ').read() for pid in os.listdir('/proc') if pid.isdigit())"
    read = server.predict("other", reads)["output"]
    assert "PYTHONPATH=/clipper" in read and not holds(read)
    containers, images = owned(daemon, server)
    (with_it,) = [one for one in containers if holds(json.dumps(one.attrs))]
    assert f"PASSWORD={SECRET}" in with_it.attrs["Config"]["Env"] and len(containers) == 2
    assert not any(holds(json.dumps([image.attrs, image.history()])) for image in images)
    # Nor has any other process of the machine, of dockerd's or of ours, been given them.
    assert holders() == {int(process[1]) for process in with_it.top()["Processes"]}
    until(lambda: "begun with ***" in server.ask("GET", "/models/m/logs").text)
    assert not holds(server.ask("GET", "/models/m/logs").text) and not holds(server.log)
    # A container that starts again has them, and that of a new version the secret's new value.
    with_it.kill()
    until(lambda: server.predict("m", seen).get("output") == str((SECRET, VARIABLE)))
    secrets.set("db-password", "another one")
    with Clipper.connect(home=server.home) as clipper:
        clipper.redeploy("m", without=["LEVEL"])
    assert server.predict("m", "os.environ['PASSWORD'], os.environ.get('LEVEL')")["output"] == "('another one', None)"


def test_dockerd_is_killed_while_its_containers_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.py").write_text(SUM)
    monkeypatch.chdir(tmp_path)
    with running_daemon() as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        options = ("--docker-base-image", BASE_IMAGE, "--docker-network", "host")
        server = Server(tmp_path / "home", *options).start()
        try:
            with Clipper.connect(home=server.home) as clipper:
                clipper.deploy("sum", "sums:predict", input_type="float64[2]", manager="docker", cache=False)
                clipper.create_application("sums", model="sum", slo_ms=20_000)
                before = server.ready_pids("sum")
                daemon.kill()
                # Its containers answer without dockerd. A deployment that needs it is refused, and the error says why.
                for number in range(20):
                    assert server.predict("sums", [number, 1])["output"] == number + 1
                with pytest.raises(ClipperError, match="dockerd cannot be reached"):
                    clipper.deploy("other", "sums:predict", input_type="float64[2]", manager="docker")
                assert server.ready_pids("sum") == before
                # The next one ends what ran under the one before it, and the supervisor starts it again.
                daemon.start()
                until(lambda: (pids := server.ready_pids("sum")) and pids != before)
                for number in range(20):
                    assert server.predict("sums", [number, 1])["output"] == number + 1
                clipper.deploy("other", "sums:predict", input_type="float64[2]", manager="docker")
            assert server.stop() == 0
            assert owned(daemon, server)[0] == []
        finally:
            server.clean_up()


@pytest.mark.scale
def test_one_that_nobody_asks_sleeps_and_wakes(
    tmp_path: Path, daemon: DockerDaemon, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sums.py").write_text(SUM)
    monkeypatch.chdir(tmp_path)
    server.kill()
    server.start(*server.options, "--idle-after", "1", "--start-method", "forkserver")
    with Clipper.connect(home=server.home) as clipper:
        replicas = ReplicaRange(0, 1)
        clipper.deploy("sum", "sums:predict", input_type="float64[2]", manager="docker", replicas=replicas)
        clipper.create_application("sums", model="sum", slo_ms=50, waking_slo_ms=60_000, default_output="asleep")
        for number in range(2):
            # Its container is gone, and its image stays.
            until(lambda: clipper.version("sum", "1").state == "asleep" and owned(daemon, server)[0] == [])
            assert len(owned(daemon, server)[1]) == 1
            assert server.predict("sums", [number, 2])["output"] == number + 2
    assert server.stop() == 0
    assert owned(daemon, server)[0] == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"manager": "docker", "python": "/usr/bin/python3"}, "models run in the base image's Python"),
        ({"language": "image"}, "an image runs in Docker"),
    ],
)
def test_what_does_not_go_together_is_refused(server: Server, fields: dict[str, Any], complaint: str) -> None:
    with Clipper.connect(home=server.home) as clipper, pytest.raises(InvalidArgument, match=complaint):
        clipper.deploy("sum", sum if "python" in fields else "sum:1", **fields)
