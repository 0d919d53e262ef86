"""The commands of pages that are read out of order, run one after another against a server that has what they name.

Differences from the page are in ``CHANGES``, and omissions in ``LEFT_OUT``, each with its reason.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clipper import Clipper
from clipper.cli.main import cli
from tests.docs.pages import FOLLOWED, ROOT, Reader, blocks, commands
from tests.waiting import until

pytestmark = pytest.mark.long

# Of a command that begins so.
LEFT_OUT = {
    "pip install": "installs from the package index",
    "perf_analyzer": "is not among the tools of the tests",
    "grpcurl": "is not among the tools of the tests",
    "clipper start": "the server of this test runs already; tests/cli starts others",
    "clipper events --follow": "goes on until Ctrl-C",
    "clipper logs digits -f": "goes on until Ctrl-C",
    "clipper load digits --sweep": "takes minutes",
    "cd examples/traces": "tests/docs/test_logs_and_traces_page.py runs this example",
    "python receiver.py": "the same",
    "clipper deploy sum": "the same",
    "clipper app create sums": "the same",
    "clipper predict sums": "the same",
}
# A model answers rows of four numbers here, and at once or not at all: text by text.
CHANGES = {
    "[…, …]": "[[1, 0, 0, 0], [0, 1, 0, 0]]",
    "[…]": "[1, 0, 0, 0]",
    "[0.0, …]": "[1, 0, 0, 0]",
    "[1, 784]": "[1, 4]",
    "--slo-ms 20": "--slo-ms 20000",
    "--duration 30s": "--duration 200ms",
    "--rate 500 --inputs": "--rate 50 --duration 200ms --inputs",
    "--rate 500 --arrivals": "--rate 50 --duration 200ms --arrivals",
    "svm svm.joblib": "svm model:predict --input-type 'float64[4]'",
    "forest forest.joblib": "forest model:predict --input-type 'float64[4]'",
    "svm2.joblib": "model:predict --input-type 'float64[4]'",
    "net net.joblib --output probabilities": "net model:predict --input-type 'float64[4]'",
    "--model svm-big": "--model digits",
    "--model short --model long": "--model svm --model forest",
    "--model linear --model boosted": "--model svm --model forest",
}
MODEL = "def predict(inputs): return [[0.75, 0.25] if row[0] else [0.5, 0.5] for row in inputs]\n"
# Those of the pages' examples.
_IDS = re.compile(r"\b(?:4294967296|8589934592|8589934593)\b")


@dataclass
class Follower:
    """Runs commands: Clipper's own in this process, since a page has dozens of them, and others in a shell.

    Attributes:
        ids: of the queries that were answered, latest last.
    """

    reader: Reader
    ids: list[str] = field(default_factory=list)

    def run(self, command: str) -> None:
        for old, new in CHANGES.items():
            command = command.replace(old, new)
        *_, latest = ["0", *self.ids]
        earlier = self.ids[-2] if len(self.ids) > 1 else latest
        is_pair = "8589934593" in command
        command = _IDS.sub(lambda found: earlier if is_pair and found[0].endswith("2") else latest, command)
        if command.startswith("clipper"):
            words = shlex.split(command.replace("\\\n", " "), comments=True)[1:]
            # The word after > is the file that the shell would make.
            self._run_here(words[: words.index(">")] if ">" in words else words)
            return
        told = self.reader.run(command.replace("curl ", "curl -sS --fail-with-body "))
        self.ids += re.findall(r'"query_id":\s*(\d+)', told)

    def _run_here(self, words: list[str]) -> None:
        if words[:2] == ["app", "create"]:
            with Clipper.connect(home=self.home) as clipper:
                if words[2] in {each.name for each in clipper.applications()}:
                    clipper.delete_application(words[2])
        if words[:2] == ["app", "whatif"]:
            # A query comes into the log a moment after its answer.
            until(lambda: self._invoke(words).exit_code == 0)
            return
        done = self._invoke(words)
        assert done.exit_code == 0, f"{words}: {done.output} {done.exception!r}"

    def _invoke(self, words: list[str]) -> Any:
        return CliRunner().invoke(cli, words, env={"CLIPPER_HOME": str(self.home), "COLUMNS": "200"})

    @property
    def home(self) -> Path:
        return self.reader.folder / ".clipper"


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Follower]:
    """In a folder and with a server that have what pages name."""
    follower = Follower(Reader(tmp_path_factory.mktemp("followed")))
    folder = follower.reader.folder
    (folder / "model.py").write_text(MODEL)
    (folder / "real.jsonl").write_text("[1, 0, 0, 0]\n[0, 0, 0, 1]\n")
    (folder / "clipper.yaml").write_text("applications: {digits: {slo_ms: 20000, links: [svm]}}\n")
    follower.reader.run("clipper start")
    yield follower
    follower.reader.run("clipper stop")


@pytest.fixture
def served(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> Follower:
    """With the models and the applications that most pages begin with."""
    monkeypatch.chdir(follower.reader.folder)
    with Clipper.connect(home=follower.home) as clipper:
        if not clipper.models():
            for name in ("digits", "svm", "forest", "net"):
                clipper.deploy(name, "model:predict", input_type="float64[4]")
        for name in {each.name for each in clipper.applications()} & {"digits", "best"}:
            clipper.delete_application(name)
        for name in ("digits", "best"):
            clipper.create_application(
                name, model=["svm", "forest", "net"], policy="exp3", slo_ms=20_000, log_decisions=1.0
            )
        found = clipper.predict("digits", [1, 0, 0, 0])
        clipper.observe("digits", query_id=found.query_id, label=0)
        follower.ids.append(str(found.query_id))
    return follower


@pytest.mark.parametrize("page", FOLLOWED)
def test_the_commands_of_a_page_run(page: str, served: Follower) -> None:
    ran = 0
    for block in blocks(ROOT / "docs" / f"{page}.md"):
        for command in commands(block.text) if block.language == "sh" else ():
            if not command.startswith(tuple(LEFT_OUT)):
                served.run(command)
                ran += 1
    assert ran, "a page of which nothing is run is not one of these"


def test_nothing_is_left_out_that_is_gone() -> None:
    known = [
        command
        for page in FOLLOWED
        for block in blocks(ROOT / "docs" / f"{page}.md")
        if block.language == "sh"
        for command in commands(block.text)
    ]
    assert [start for start in LEFT_OUT if not any(command.startswith(start) for command in known)] == []
    assert [old for old in CHANGES if not any(old in command for command in known)] == []
