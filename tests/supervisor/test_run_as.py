"""Models that run as another user than the server: what is closed to them, and what works all the same."""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

import clipper
from clipper.base.processes.proc import parent_of, user_of
from clipper.base.run_as import check_able, find_run_as
from clipper.client import Clipper
from clipper.errors import InvalidArgument
from clipper.settings.secret_files import SecretFiles
from clipper.supervisor.folders import close_home, open_home
from tests.small_packages import make_wheel, use_only
from tests.supervisor.live_server import APP, Server, answering, processes_of
from tests.waiting import TIMEOUT_S, until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root runs models as another user"),
    pytest.mark.machine,
]

NOBODY = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

# A model that looks around: it runs each input, which is a text, as code and answers the result.
LOOKS = """
import json, os, socket, sys
from pathlib import Path

HERE = Path(__file__)

def attempt(code):
    try:
        return str(eval(code, globals()))
    except Exception as error:
        return type(error).__name__

def predict(inputs):
    return [attempt(code) for code in inputs]
"""


def bind(folder: Path, place: Path) -> str:
    """The shell's lines that show a folder at another place."""
    return f"mkdir -p {quote(str(place))}\nmount --bind {quote(str(folder))} {quote(str(place))}"


def through(place: Path) -> list[str]:
    """The words that start a server whose Python and code all users can read.

    Where these are in a closed folder, such as root's own, the server and its models see them in an open one of the
    same name, which nobody else does.
    """
    code = (Path(path).resolve() for path in (sys.base_prefix, sys.prefix, clipper.__path__[0]))
    closed = {path: folder for path in code for folder in path.parents if not folder.stat().st_mode & 0o001}
    if not closed:
        return []
    held = {path: place / "python" / str(number) for number, path in enumerate(closed)}
    lines = ["set -e"]
    lines += [bind(path, hidden) for path, hidden in held.items()]
    lines += [f"mount -t tmpfs -o mode=755 none {quote(str(folder))}" for folder in set(closed.values())]
    lines += [bind(hidden, path) for path, hidden in held.items()]
    return ["unshare", "--mount", "sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user gets to, which pytest's are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class OpenServer(Server):
    def start(self, *options: str) -> Server:
        self.home.mkdir(parents=True, exist_ok=True)
        self.through = through(Path(tempfile.mkdtemp(dir=self.home.parent)))
        return super().start(*options)


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    server = OpenServer(place / "home", "--run-as", "nobody")
    yield server
    server.clean_up()


class Looking:
    """A server with a model that looks around, and another beside it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        assert server.deploy("m", LOOKS, input_type="string", cache=False)["state"] == "ready"
        assert server.deploy("other", answering("one"), input_type="string")["state"] == "ready"
        server.call("POST", "/applications", {**APP, "input_type": "string"})

    def ask(self, code: str) -> Any:
        return self.server.predict("app", code)["output"]


def test_a_model_is_another_user_that_reaches_only_its_own_files(server: Server) -> None:
    assert NOBODY is not None
    looking = Looking(server.start())
    home, ask = str(server.home), looking.ask
    assert ask("(os.getresuid(), os.getresgid(), os.getgroups())") == str(
        ((NOBODY.pw_uid,) * 3, (NOBODY.pw_gid,) * 3, [])
    )
    status = json.loads(ask("json.dumps(dict(line.split(':', 1) for line in open('/proc/self/status')))"))
    assert status["NoNewPrivs"].strip() == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    # Its artifact it can read, and its folder is its own, as is what passes for its home.
    assert "def attempt" in ask("HERE.read_text()")
    assert ask("Path('mine').write_text('x')") == "1"
    assert ask("Path('~/.also').expanduser().write_text('x')") == "1"
    refused = [
        "HERE.write_text('x')",
        "HERE.with_name('new.py').write_text('x')",
        "HERE.chmod(0o777)",
        "HERE.parent.rename(HERE.parent.with_name('elsewhere'))",
        f"os.listdir({home!r})",
        f"os.listdir('{home}/artifacts')",
        f"os.listdir('{home}/run')",
        f"os.listdir('{home}/logs')",
        f"os.listdir('{home}/run/scratch')",
        f"Path('{home}/artifacts/new').mkdir()",
        f"Path('{home}/run/pythonpath/numpy.py').write_text('x')",
        "Path(sys.prefix, 'new').write_text('x')",
    ]
    names = ["token", "registry.sqlite3", "registry.sqlite3-wal", "selection.sqlite3", "supervisor.json"]
    names += ["run/other@1-1.json", "run/worker-0.json", "logs/supervisor.log", "logs/other@1-1.log"]
    for name in names:
        until((server.home / name).exists)
        refused += [f"open('{home}/{name}').read()", f"open('{home}/{name}', 'a')"]
    for path in server.home.glob("run/*.sock"), server.home.glob("run/m*/s"):
        for socket in path:
            refused.append(f"socket.socket(socket.AF_UNIX).connect({str(socket)!r})")
    refused.append(f"os.kill({server.worker_pids[0]}, 0)")
    assert sum(".connect(" in code for code in refused) == 3
    assert {code: ask(code) for code in refused} == dict.fromkeys(refused, "PermissionError")
    # Its log is written for it.
    assert ask("print('a line of its own', flush=True)") == "None"
    until(lambda: "a line of its own" in server.ask("GET", "/models/m/logs").text)
    assert server.stop() == 0
    assert processes_of(server.home) == {}
    assert list((server.home / "run" / "scratch").iterdir()) == []
    assert [path.name for path in (server.home / "run").iterdir()] != []


@pytest.mark.scale
def test_a_forked_model_is_that_user_too_and_cannot_reach_its_fork_server(server: Server) -> None:
    assert NOBODY is not None
    server.start(*server.options, "--start-method", "forkserver")
    assert server.deploy("other", answering("one"), input_type="string")["state"] == "ready"
    assert server.deploy("m", LOOKS, input_type="string", cache=False)["state"] == "ready"
    server.call("POST", "/applications", {**APP, "input_type": "string"})
    (pid,) = server.ready_pids("m")
    parent = parent_of(pid)
    assert parent is not None and parent_of(parent) == server.place.pid and user_of(parent) == NOBODY.pw_uid

    def ask(code: str) -> Any:
        return server.predict("app", code)["output"]

    assert ask("(os.getresuid(), os.getresgid(), os.getgroups())") == str(
        ((NOBODY.pw_uid,) * 3, (NOBODY.pw_gid,) * 3, [])
    )
    status = json.loads(ask("json.dumps(dict(line.split(':', 1) for line in open('/proc/self/status')))"))
    assert status["NoNewPrivs"].strip() == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert ask("Path('mine').write_text('x')") == "1"
    assert ask("Path('~/.also').expanduser().write_text('x')") == "1"
    assert ask("os.path.expanduser('~')") == ask("os.getcwd()")
    refused = [
        f"open('/proc/{parent}/mem', 'rb')",
        f"open('/proc/{parent}/environ', 'rb').read()",
        f"os.listdir('/proc/{parent}/fd')",
        f"os.listdir({str(server.home)!r})",
        f"Path('{server.home}/run/pythonpath/numpy.py').write_text('x')",
        f"os.kill({server.worker_pids[0]}, 0)",
    ]
    assert {code: ask(code) for code in refused} == dict.fromkeys(refused, "PermissionError")
    assert server.stop() == 0
    assert processes_of(server.home) == {}


@pytest.mark.long
def test_bounds_restarts_and_take_over_hold_as_for_the_servers_own_user(server: Server) -> None:
    greedy = (
        "kept = []\ndef predict(inputs):\n    if inputs[0][0] == 1:\n        kept.append(bytearray(400 << 20))\n"
        "        import time; time.sleep(60)\n    return [0.0 for _ in inputs]\n"
    )
    server.start()
    assert server.deploy("m", greedy, input_type="float64[2]", memory_bytes=256 << 20)["state"] == "ready"
    server.call("POST", "/applications", APP)
    assert server.predict("app", [1, 2])["error"] in ("model_error", "no_replica")
    until(lambda: "MiB of memory" in str(server.call("GET", "/replicas")[0]["last_error"]))
    # The input may have been tried once more, alone, so that the next replica died of it, too.
    until(lambda: "output" in server.predict("app", [3, 4]))
    before = server.ready_pids("m")
    server.kill()
    server.start().until_ready()
    assert server.ready_pids("m") == before
    os.kill(before[0], signal.SIGKILL)
    until(lambda: server.ready_pids("m") not in ([], before))
    # Another user is asked for: what runs as the one before goes.
    server.kill()
    server.start("--query-port=0").until_ready()
    (pid,) = server.ready_pids("m")
    assert Path(f"/proc/{pid}").stat().st_uid == 0
    assert server.home.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    assert processes_of(server.home) == {}
    assert not list((server.home / "run").glob("m*"))


@pytest.mark.long
def test_a_home_that_was_used_without_it_is_closed_before_it_is_opened(server: Server) -> None:
    server.start("--workers=1")
    digest = server.upload(LOOKS)
    until((server.home / "selection.sqlite3").exists)
    assert server.stop() == 0
    # As a Clipper from before left them.
    artifact = server.home / "artifacts" / digest
    for path in artifact, artifact / "code":
        path.chmod(0o700)
    for name in ("registry.sqlite3", "selection.sqlite3", "logs", "artifacts"):
        (server.home / name).chmod(0o755)
    server.start()
    looking = Looking(server)
    home = server.home
    for name in ("registry.sqlite3", "selection.sqlite3", "logs/supervisor.log"):
        assert looking.ask(f"open('{home}/{name}').read()") == "PermissionError"
    assert looking.ask(f"os.listdir('{home}/artifacts')") == "PermissionError"


POLICY = """
import os
from clipper.learning.policies.policy import Policy

class Tells(Policy):
    def __init__(self):
        files = [name for name in ("token", "registry.sqlite3") if os.access(f"{home}/{{name}}", os.R_OK)]
        raise ValueError(f"ids {{os.getresuid()}} {{os.getgroups()}} {{files}} {{open('mine', 'w').name}}")

    def select(self, models, totals, query, random):
        raise NotImplementedError
"""


@pytest.mark.long
def test_a_policy_is_tried_as_that_user(server: Server) -> None:
    assert NOBODY is not None
    server.start()
    server.deploy("m", answering("one"), input_type="float64[2]")
    digest = server.upload(POLICY.format(home=server.home))
    answer = server.call("POST", "/applications", {**APP, "policy": "my_model:Tells", "code": digest}, status=400)
    assert f"ids {(NOBODY.pw_uid,) * 3} [] [] mine" in answer["cause"]


BACKEND = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from small_packages import make_wheel

def build_wheel(folder, config_settings=None, metadata_directory=None):
    files = {{"own/__init__.py": f"BUILT_BY = {{os.getresuid()}}"}}
    return make_wheel(Path(folder), "own", "1.0", files).name
"""


@pytest.mark.long
def test_packages_are_built_as_that_user_and_are_not_its_own_to_write_to(
    place: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NOBODY is not None
    packages, project = place / "packages", place / "own"
    packages.mkdir()
    project.mkdir()
    use_only(packages, monkeypatch)
    helper = shutil.copy(Path(__file__).parents[1] / "small_packages.py", place)
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (project / "pyproject.toml").write_text(build)
    (project / "backend.py").write_text(BACKEND.format(tests=str(Path(helper).parent)))
    make_wheel(packages, "small", "1.0")
    with Clipper.connect(home=server.start().home) as clipper:

        def tells(inputs: Any) -> list[str]:
            import own  # type: ignore[import-not-found]

            found = []
            for path in (own.__file__, own.__cached__, f"{own.__path__[0]}/new", f"{__import__('sys').prefix}/new"):
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
                except OSError as error:
                    found.append(type(error).__name__)
            return [f"{own.BUILT_BY} {found}"] * len(inputs)

        clipper.deploy("m", tells, requirements=[f"own @ file://{project}", "small"])
        clipper.create_application("app", model="m", slo_ms=20_000)
        told = clipper.predict("app", [1.0]).output
    assert told == f"{(NOBODY.pw_uid,) * 3} {['PermissionError'] * 4}"
    (environment,) = (server.home / "environments").glob("[!.]*")
    owners = {path.lstat().st_uid for path in environment.rglob("*") if not path.is_symlink()}
    assert owners == {0}
    assert not [path for path in environment.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o222]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("no-such-user", "there is no user 'no-such-user' on this machine"),
        ("nobody:no-such-group", "there is no group 'no-such-group' on this machine"),
        ("4123456789", "there is no user '4123456789' on this machine"),
        ("root", "root is root, or in root's group"),
        ("nobody:0", "nobody:0 is root, or in root's group"),
        ("", "there is no user ''"),
    ],
)
def test_who_cannot_be_is_refused(text: str, cause: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(cause)):
        find_run_as(text)


@pytest.mark.parametrize("text", ["no-such-user", ""])
def test_a_server_for_who_cannot_be_does_not_start(tmp_path: Path, text: str) -> None:
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(tmp_path / "h"), "--run-as", text]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 2 and f"there is no user '{text}'" in done.stderr
    assert not (tmp_path / "h").exists()
    start = [sys.executable, "-c", "from clipper.cli.main import main; main()", "start", "--home", str(tmp_path / "h")]
    done = subprocess.run([*start, "--run-as", text], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 2 and "there is no user" in " ".join(done.stderr.split())


def test_who_is_not_root_cannot_have_it() -> None:
    assert NOBODY is not None
    code = f"from clipper.base.run_as import *; become({NOBODY.pw_uid}, {NOBODY.pw_gid}); find_run_as('daemon')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert "start the server as root, or without --run-as" in done.stderr


def test_a_root_that_may_not_is_told_what_it_lacks() -> None:
    check_able()
    code = "from clipper.base.run_as import check_able; check_able()"
    bound = ["setpriv", "--bounding-set=-sys_ptrace,-kill", "--inh-caps=-sys_ptrace,-kill", sys.executable, "-c", code]
    done = subprocess.run(bound, capture_output=True, text=True, check=False)
    assert "root lacks CAP_KILL, CAP_SYS_PTRACE; if the server is in a container" in done.stderr


def test_a_home_that_the_user_cannot_reach_is_refused_before_a_start(server: Server) -> None:
    closed = server.home.parent / "closed"
    closed.mkdir(mode=0o700)
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(closed / "home"), "--run-as", "nobody"]
    done = subprocess.run(
        [*through(server.home.parent), *argv], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 1
    assert f"models cannot run as nobody: {closed} on the way to the home is closed to that user" in done.stderr


@pytest.mark.long
def test_a_second_server_does_not_close_the_home_to_the_first_ones_models(server: Server) -> None:
    server.start()
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(server.home)]
    assert b"runs already" in subprocess.run(argv, capture_output=True, check=False, timeout=TIMEOUT_S).stderr
    assert server.home.stat().st_mode & 0o777 == 0o710
    assert server.deploy("m", answering("one"), input_type="float64[2]")["state"] == "ready"


@pytest.mark.long
def test_sockets_that_are_elsewhere_are_reached_as_well(place: Path) -> None:
    server = OpenServer(place / ("x" * 100) / "home", "--run-as", "nobody")
    try:
        server.start()
        assert server.deploy("m", answering("one"), input_type="float64[2]")["state"] == "ready"
        home = open_home(server.home)
        assert home.sockets != home.run
        assert server.stop() == 0
        assert not home.sockets.exists()
        close_home(open_home(server.home))
        open_home(server.home).remove_sockets_folder()
    finally:
        server.clean_up()


def test_the_models_user_gets_no_server_by_a_home_of_its_own(tmp_path: Path) -> None:
    """Its model could replace the token, and be an admin of a server that root runs."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("x" * 40)
    for path in (home, home / "token"):
        os.chown(path, 65534, 65534)
    ports = ["--query-port", "0", "--management-port", "0", "--run-as", "nobody"]
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(home), *ports]
    started = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert started.returncode == 1
    assert "belongs to user 65534, and this is user 0: run this as user 65534" in started.stderr
    assert [path.name for path in home.iterdir()] == ["token"]


@pytest.mark.long
def test_a_model_with_a_secret_is_closed_to_other_models_of_its_user(server: Server) -> None:
    assert NOBODY is not None
    server.start()
    SecretFiles(server.home, {}).set("KEY", "a key that opens doors")
    own: Any = {"secrets": ["KEY"], "env": {"OMP_NUM_THREADS": "2"}}
    forking = f"import subprocess\nCHILD = subprocess.Popen(['sleep', '1000'])\n{LOOKS}"
    for model, code, fields in (("m", forking, own), ("second", LOOKS, own), ("other", LOOKS, {})):
        assert server.deploy(model, code, input_type="string", cache=False, **fields)["state"] == "ready"
        application = {**APP, "name": model, "input_type": "string", "links": [{"model": model}]}
        server.call("POST", "/applications", application)

    def ask(model: str, code: str) -> Any:
        return server.predict(model, code)["output"]

    seen = "os.environ['KEY'], os.environ['OMP_NUM_THREADS'], os.getresuid()"
    assert ask("m", seen) == str(("a key that opens doors", "2", (NOBODY.pw_uid,) * 3))
    assert ask("m", "Path('mine').write_text('x')") == ask("m", "Path('~/.also').expanduser().write_text('x')") == "1"
    pids = [*server.ready_pids("m"), int(ask("m", "CHILD.pid"))]
    folder = ask("m", "os.getcwd()")
    looks = [f"open('/proc/{pid}/{name}', 'rb').read(1)" for pid in pids for name in ("environ", "mem", "maps")]
    looks += [f"os.readlink('/proc/{pid}/fd/1')" for pid in pids]
    looks += [f"os.listdir({folder!r})", f"open('{folder}/mine').read()", f"os.listdir('{server.home}/secrets')"]
    looks += [f"open('{server.home}/secrets/KEY').read()", f"open('{server.home}/registry.sqlite3').read()"]
    for model in ("second", "other"):
        assert {code: ask(model, code) for code in looks} == dict.fromkeys(looks, "PermissionError")
        assert ask(model, "os.setgid(os.stat('..').st_gid + 1)") == "PermissionError"
    assert {ask(model, "os.getgid()") for model in ("m", "second")} != {str(NOBODY.pw_gid)}
    # The supervisor still finds all that the model has started.
    assert server.stop() == 0
    assert processes_of(server.home) == {}


def test_variables_do_not_steer_what_still_has_the_servers_rights(server: Server, place: Path) -> None:
    server.start()
    own = {"LD_PRELOAD": str(place / "nothing.so")}
    assert server.deploy("m", LOOKS, input_type="string", env=own)["state"] == "ready"
    # The loader complains of a library that it cannot find, once for each program that it starts with the variable.
    logs = server.ask("GET", "/models/m/logs").text
    assert logs.count("cannot be preloaded") == 1
