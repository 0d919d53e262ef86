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
    venv, install = commands("Install")
    assert venv[:3] == ["python3", "-m", "venv"] and install == ["pip", "install", ".[sklearn]"]
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


def test_a_first_model_answers_and_a_team_goes_on_with_the_same_server(
    tmp_path: Path, home: Path, installed: Path
) -> None:
    (train,) = blocks("Your first model", "python")
    assert train.startswith("# train.py\n")
    (tmp_path / "train.py").write_text(train)
    trains, *lines, curl = commands("Your first model")
    assert trains == ["python", "train.py"]
    subprocess.run([str(installed / "python"), *trains[1:]], cwd=tmp_path, check=True, timeout=WITHIN_S)
    for words in lines:
        run(patient(words), tmp_path, home, installed)
    _, url, _, body = curl
    answer = httpx.post(
        url.replace("localhost:1337", read_place(home).query_url), content=body, timeout=WITHIN_S
    ).json()
    (shown,) = blocks("Your first model", "json")
    assert json.loads(shown) == answer | {"query_id": json.loads(shown)["query_id"]}

    *lines, stop = commands("What a team needs")
    (code,) = blocks("What a team needs", "python")
    for words in lines:
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
    assert stop == ["clipper", "stop"]
    run(stop, tmp_path, home, installed)
    with pytest.raises(Unavailable):
        read_place(home)


def test_a_model_that_is_written_is_served_while_it_is_edited(tmp_path: Path, home: Path, installed: Path) -> None:
    (totals,) = blocks("Write a model", "python")
    (serve,) = commands("Write a model")
    assert totals.startswith("# totals.py\n")
    (tmp_path / "totals.py").write_text(totals)
    command, environment = whole(serve, home, installed)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as serving:
        try:
            assert ask("totals", {"input": [1.0, 2.0, 3.5]}, home, serving)["output"] == 6.5
        finally:
            serving.send_signal(signal.SIGINT)
            assert serving.wait(WITHIN_S) == 0


def patient(words: list[str]) -> list[str]:
    """A command with an objective that a loaded machine keeps."""
    return ["20000" if before == "--slo-ms" else word for before, word in zip(["", *words], words, strict=False)]


def ask(name: str, body: dict[str, object], home: Path, serving: subprocess.Popen[bytes]) -> dict[str, object]:
    """Ask an application as soon as a model answers for it."""

    def answered() -> dict[str, object] | None:
        try:
            answer = httpx.post(f"{read_place(home).query_url}/{name}/predict", json=body, timeout=WITHIN_S)
        except (Unavailable, httpx.TransportError):
            return None  # not started yet
        return dict(answer.json()) if answer.status_code == 200 else None

    return until(answered, failed=lambda: serving.poll() is not None and "it has ended", timeout_s=WITHIN_S)


@pytest.mark.parametrize(("number", "task", "column"), [(0, "svm", 1), (1, "table", 0)])
def test_the_ratios_are_those_of_the_measured_page(number: int, task: str, column: int) -> None:
    page = (ROOT / "benchmarks" / "peers" / "README.md").read_text()
    table = page.split(f"### {task}\n")[1].split("<!-- its end")[0]
    section = README.split("\n## How fast\n")[1].split("\n## ")[0]
    rows = [row.strip("| ").split(" | ") for row in section.splitlines() if re.match(r"\| [a-z]", row)]
    (_, *names), (_, *rates), (_, *times) = rows[3 * number : 3 * number + 3]
    for name, rate, time in zip(names, rates, times, strict=True):
        first = re.split(r"\W", name.lower())[0]
        (row,) = re.findall(rf"^\| {first}(?:-pydantic)? [\d.]+ \| (.*)$", table, re.MULTILINE)
        # The cell of 32 connections: the peer's numbers, then Clipper's requests a second and processor time over them.
        ((ratio, cpu),) = re.findall(r"\*\*([\d.]+) .*\*\*, ([\d.]+)$", row.split(" | ")[column].strip())
        assert abs(float(rate.removesuffix(" ×")) / float(ratio) - 1) < 0.02
        assert time == f"{cpu} ×"


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
