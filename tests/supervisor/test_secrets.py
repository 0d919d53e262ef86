"""Variables and secrets of a version: its containers have them, and nobody else is shown their values."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from clipper.base.processes.proc import pids
from clipper.client import Clipper
from clipper.errors import InvalidArgument
from clipper.settings.secret_files import SecretFiles
from clipper.supervisor.backup import back_up
from tests.supervisor.live_server import APP, Server, processes_of
from tests.waiting import TIMEOUT_S, until

# All processes of the machine are looked through, among them those of these tests that run elsewhere.
SECRET = f"correct horse battery staple {os.getpid()}"
VARIABLE = f"not-for-every-eye-{os.getpid()}"
# Answers what a text, which is code, evaluates to; and fails with the secret in its message.
LOOKS = """
import os
print("begun with", os.environ.get("PASSWORD"), flush=True)

def predict(inputs):
    return [str(eval(code)) for code in inputs]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model m that has a variable and a secret, and a model other that has neither."""
    server = Server(tmp_path_factory.mktemp("secrets") / "home", "--start-method", "forkserver")
    try:
        server.start()
        SecretFiles(server.home, {}).set("db-password", SECRET)
        fields: Any = {"input_type": "string", "cache": False}
        own: Any = {"env": {"LEVEL": VARIABLE}, "secrets": ["PASSWORD=db-password"]}
        for model, settings in (("m", own), ("other", {}), ("third", {})):
            assert server.deploy(model, LOOKS, **fields, **settings)["state"] == "ready"
            links = [{"model": model}]
            server.call("POST", "/applications", {**APP, "name": model, "input_type": "string", "links": links})
        yield server
        assert server.stop() == 0
    finally:
        server.clean_up()


def ask(server: Server, model: str, code: str) -> Any:
    return server.predict(model, code)["output"]


def holds(text: str) -> bool:
    return SECRET in text or VARIABLE in text or SECRET.encode().hex() in text


def holders() -> set[int]:
    """The processes of this machine in whose environment or command line a value is."""
    found = set()
    for pid in pids():
        with suppress(OSError):  # it has ended
            folder = Path(f"/proc/{pid}")
            text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            if holds(text.decode(errors="replace")):
                found.add(pid)
    return found


def test_its_own_containers_have_them_and_those_of_other_models_do_not(server: Server) -> None:
    assert ask(server, "m", "os.environ['PASSWORD'], os.environ['LEVEL']") == str((SECRET, VARIABLE))
    for model in ("other", "third"):
        assert ask(server, model, "os.environ.get('PASSWORD'), os.environ.get('LEVEL')") == "(None, None)"
        assert not holds(ask(server, model, "dict(os.environ)"))
    # Nor have the workers and the fork server, whose memory further models would get.
    assert holders() & processes_of(server.home).keys() == set(server.ready_pids("m"))


def test_no_route_shows_a_value(server: Server) -> None:
    version = server.call("GET", "/models/m/versions/1")
    assert (version["variables"], version["secrets"]) == (["LEVEL"], ["PASSWORD=db-password"])
    until(lambda: "begun with" in server.ask("GET", "/models/m/logs").text)
    logs = server.ask("GET", "/models/m/logs").json()
    assert any("begun with ***" in line for lines in logs["lines"].values() for line in lines)
    description = server.ask("GET", "/schema/openapi.json").json()
    paths = [path for path, calls in description["paths"].items() if "get" in calls]
    assert "/models/{model}/deployments" in paths and len(paths) > 15
    for path in paths:
        filled = path.replace("{model}", "m").replace("{version}", "1").replace("{application}", "m")
        assert not holds(server.ask("GET", filled).text), path


def test_an_error_of_the_model_does_not_carry_its_secret_to_a_client(server: Server) -> None:
    url = f"{server.place.query_url}/m/predict"
    code = "(_ for _ in ()).throw(ValueError('cannot log in with ' + os.environ['PASSWORD']))"
    answer = httpx.post(url, json={"input": code}, timeout=TIMEOUT_S).text
    assert "cannot log in with ***" in answer and SECRET not in answer


def test_only_the_server_s_user_reads_the_files_that_have_it(server: Server, tmp_path: Path) -> None:
    path = server.home / "secrets" / "db-password"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    # Its log has what it prints itself, and is closed to other users by the home.
    assert server.files_with(SECRET) == {path, server.home / "logs" / "m@1-1.log"}
    backup = tmp_path / "backup"
    back_up(server.home, backup)
    assert SECRET.encode() not in backup.read_bytes()


def test_a_new_version_of_an_artifact_has_other_variables(server: Server) -> None:
    with closing(Clipper.connect(home=server.home, token=server.token)) as clipper:
        before = clipper.deployments("m")["1"]
        assert not holds(msgspec.json.encode(before).decode())
        changed = clipper.redeploy("m", env={"REGION": "north"}, secrets=("TOKEN=db-password",), cpus=1)
        assert (changed.variables, changed.secrets) == (
            ("LEVEL", "REGION"),
            ("PASSWORD=db-password", "TOKEN=db-password"),
        )
        # The value that the server shows to nobody is kept.
        seen = "os.environ['LEVEL'], os.environ['REGION'], os.environ['TOKEN']"
        until(lambda: ask(server, "m", seen) == str((VARIABLE, "north", SECRET)))
        fewer = clipper.redeploy("m", without=["TOKEN", "REGION"], env={"PASSWORD": "plain"})
        assert (fewer.variables, fewer.secrets) == (("LEVEL", "PASSWORD"), ())
        assert clipper.deployments("m")[fewer.version].artifact == before.artifact
        with pytest.raises(InvalidArgument, match="has no variable REGION"):
            clipper.redeploy("m", without=["REGION"])
        clipper.rollback("m", "1")


def test_a_secret_that_is_missing_is_named_before_anything_starts(server: Server) -> None:
    body = {"artifact": server.upload(LOOKS), "loader": "import", "target": "my_model:predict"}
    refused = server.call("POST", "/models/m/versions", {**body, "secrets": ["NOWHERE"]}, status=400)
    assert "secret 'NOWHERE' does not exist" in refused["cause"]
    for wrong in ({"env": {"PYTHONPATH": "/tmp"}}, {"env": {"A": "\0"}}, {"env": {"A": "sha256:00000000"}}):
        refused = server.call("POST", "/models/m/versions", {**body, **wrong}, status=400)
        assert refused["error"] == "invalid_argument", refused


def test_a_container_that_dies_of_its_secret_says_so_without_it(server: Server) -> None:
    code = "import os\nraise SystemExit('cannot log in with ' + os.environ['PASSWORD'])\n"
    failed = server.deploy("failing", code, secrets=["PASSWORD=db-password"])
    assert failed["state"] == "failed" and "cannot log in with ***" in failed["last_error"]
    assert not holds(json.dumps(failed)) and not holds(server.ask("GET", "/events").text)


def test_it_starts_again_only_while_its_secret_is_there(server: Server, tmp_path: Path) -> None:
    secrets = SecretFiles(server.home, os.environ)
    secrets.set("passing", "soon to be gone")
    deployed = server.deploy("passing", LOOKS, input_type="string", secrets=["PASSWORD=passing"])
    assert deployed["state"] == "ready"
    secrets.delete("passing")
    (pid,) = server.ready_pids("passing")
    os.kill(pid, 9)
    until(
        lambda: "secret 'passing' does not exist" in str(server.call("GET", "/models/passing/versions/1")["replicas"])
    )
    secrets.set("passing", "back again")
    until(lambda: server.ready_pids("passing"))
