"""README's commands and code, run as they stand there against a real server, from a wheel in an empty environment.

Only what a reader would change is changed: ports that are free, and an objective that a loaded machine keeps.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

from clipper.errors import Unavailable
from clipper.settings.home import read_place
from tests import wheels
from tests.waiting import until

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FREE_PORTS = ["--query-port", "0", "--management-port", "0"]
# Longer than any one command may take on a busy machine.
WITHIN_S = 200


def blocks(section: str, language: str) -> list[str]:
    """The fenced blocks of a section, in order."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(section: str) -> list[list[str]]:
    found, begun = [], ""
    for line in "".join(blocks(section, "sh")).splitlines(keepends=True):
        begun += line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # a quotation goes on in the next line
            continue
        found += [words] if words else []
        begun = ""
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are of a Clipper that was installed as README has it, from its wheel."""
    (install,) = [words for words in commands("Serve a model") if words[0] == "pip"]
    assert install == ["pip", "install", ".[sklearn]"]
    folder = tmp_path_factory.mktemp("installed")
    return wheels.install(wheels.build("wheel", folder), "sklearn", folder / "environment")


def whole(words: list[str], home: Path, installed: Path) -> tuple[list[str], dict[str, str]]:
    """A command of README as it can be run here, and its environment."""
    assert words[0] == "clipper"
    extra = FREE_PORTS if words[1] in {"start", "serve"} else []
    return [str(installed / "clipper"), *words[1:], *extra], {**os.environ, "CLIPPER_HOME": str(home)}


def run(words: list[str], folder: Path, home: Path, installed: Path) -> str:
    command, environment = whole(words, home, installed)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def home(installed: Path) -> Iterator[Path]:
    """A home; what a failed test leaves running in it is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        if (Path(folder) / "supervisor.json").exists():
            run(["clipper", "stop"], Path(folder), Path(folder), installed)


def test_a_model_is_served_and_then_a_server_run_in_the_same_home(tmp_path: Path, home: Path, installed: Path) -> None:
    train, totals = blocks("Serve a model", "python")
    (tmp_path / "train.py").write_text(train)
    (tmp_path / "totals.py").write_text(totals)
    assert train.startswith("# train.py\n") and totals.startswith("# totals.py\n")
    _, trains, serve, curl = commands("Serve a model")
    assert trains == ["python", "train.py"]
    subprocess.run([str(installed / "python"), *trains[1:]], cwd=tmp_path, check=True, timeout=WITHIN_S)
    command, environment = whole(serve, home, installed)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as serving:
        try:
            answer = ask(curl, home, serving)
        finally:
            serving.send_signal(signal.SIGINT)
            assert serving.wait(WITHIN_S) == 0
    (shown,) = blocks("Serve a model", "json")
    assert json.loads(shown) == answer | {"query_id": json.loads(shown)["query_id"]}

    lines = commands("Run a server")
    (stop,) = [words for words in lines if words[1] == "stop"]
    (code,) = blocks("Run a server", "python")
    for words in lines:
        if words is not stop:
            run(words, tmp_path, home, installed)
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    made = [path.name for path in tmp_path.iterdir() if not any(fnmatch(path.name, each) for each in ignored)]
    assert made == [], "in a checkout git would show them"
    (tmp_path / "from_python.py").write_text(code.replace("slo_ms=100", "slo_ms=20_000"))
    told = subprocess.run(
        [str(installed / "python"), "from_python.py"],
        cwd=tmp_path,
        env={**os.environ, "CLIPPER_HOME": str(home)},
        check=True,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert told.stdout == "3.0\n"
    run(stop, tmp_path, home, installed)
    with pytest.raises(Unavailable):
        read_place(home)


def ask(curl: list[str], home: Path, serving: subprocess.Popen[bytes]) -> dict[str, object]:
    """Do what README's curl line does, as soon as the application is there."""
    _, url, _, body = curl

    def answered() -> dict[str, object] | None:
        try:
            local = url.replace("localhost:1337", read_place(home).query_url.removeprefix("http://"))
            answer = httpx.post(f"http://{local}", content=body)
        except (Unavailable, httpx.TransportError):
            return None  # not started yet
        return dict(answer.json()) if answer.status_code == 200 else None

    return until(answered, failed=lambda: serving.poll() is not None and "it has ended", timeout_s=WITHIN_S)


def test_make_targets_exist() -> None:
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert {"demo", "test"} <= set(targets)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    root = Path(__file__).parents[2]
    links = set(re.findall(r"\]\(([^)#]+)\)", README))
    assert {page.relative_to(root).as_posix() for page in root.glob("docs/*.md")} <= links
    assert [link for link in links if not (root / link).exists()] == []
