"""Completions that shells offer at TAB: real shells, with the scripts that the command gives them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from clipper.client import Clipper
from tests.cli import shells
from tests.conftest import Api
from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.long

PROGRAM = Path(sys.executable).parent / "clipper"
NOUNS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


@pytest.fixture
def environ(api: Api, tmp_path: Path) -> Mapping[str, str]:
    """Of a shell that finds the command, and of which the server has models and applications."""
    with Clipper.connect(home=api.home) as clipper:
        for name in ("digits", "digests", "words"):
            clipper.deploy(name, lambda inputs: inputs, input_type="doubles")
        clipper.create_application("reader", model="digits")
    return {
        **os.environ,
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "CLIPPER_HOME": str(api.home),
        "HOME": str(tmp_path),
    }


def script(shell: str, environ: Mapping[str, str]) -> str:
    """The line that docs/cli.md has for this shell."""
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    line = next(line for line in page.splitlines() if f"_CLIPPER_COMPLETE=source_{shell}" in line)
    return line.split("`")[-2]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_options_and_names(shell: str, environ: Mapping[str, str]) -> None:
    with shells.running(NOUNS[shell], environ) as typed:
        typed.until_shown("ready> ")
        typed.type(f"{script(shell, environ)}; echo is'-'set\n")
        typed.until_shown("is-set")
        typed.until_shown("ready> ")
        for begun, completed in (
            ("clipper mod", "clipper model "),
            ("clipper start --drain-d", "clipper start --drain-delay "),
            ("clipper predict rea", "clipper predict reader "),
            ("clipper logs dig\t", "digests"),
        ):
            typed.type(f"{begun}\t")
            typed.until_shown(completed)
            typed.type("\x15")  # ^U: the line is empty again


def test_fish_completes_commands_and_names(environ: Mapping[str, str]) -> None:
    for begun, offered in (("clipper mod", ["model"]), ("clipper model show dig", ["digests", "digits"])):
        program = f"{script('fish', environ)}; complete --do-complete '{begun}'"
        command = ["fish", "--no-config", "-c", program]
        told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        assert sorted(line.partition("\t")[0] for line in told.stdout.splitlines()) == offered


def test_without_a_server_no_names_are_offered(tmp_path: Path) -> None:
    environ = os.environ | {
        "CLIPPER_HOME": str(tmp_path),
        "_CLIPPER_COMPLETE": "complete_bash",
        "COMP_WORDS": "clipper model show",
        "COMP_CWORD": "3",
    }
    told = subprocess.run([PROGRAM], env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert (told.stdout.strip(), told.stderr) == ("", "")
