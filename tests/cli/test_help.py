"""The help of commands: for people, with examples that are right."""

import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from clipper.cli.examples import EXAMPLES
from clipper.cli.main import cli
from clipper.cli.settings import SUBJECT_OF, options_of
from clipper.learning.mathematics.losses import LOSSES
from clipper.learning.policies.by_name import POLICIES
from clipper.settings.application import LOSS_NAMES, POLICY_NAMES, NewApplication
from clipper.settings.server import ServerSettings
from scripts.option_tables import commands

COMMANDS = {name.removeprefix("clipper "): command for name, command in commands()}
# Typer writes these words if it is not told how people call a value.
OF_PROGRAMMERS = ("<str>", "<bool>", "<path>", "<list", "<int>")


def help_of(name: str) -> str:
    result = CliRunner().invoke(cli, [*shlex.split(name), "-h"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal_and_speaks_of_no_types_of_programs(name: str) -> None:
    shown = help_of(name)
    assert max(map(len, shown.splitlines())) <= 80
    assert not [each for each in OF_PROGRAMMERS if each in shown]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_the_examples(name: str) -> None:
    told = " ".join(help_of(name).partition("Examples:")[2].split())
    assert told == " ".join(f"$ {line}" for line in EXAMPLES[name])


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_examples_are_right(name: str, line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "clipper" and " ".join(words).startswith(name)
    command: Any = COMMANDS[name]
    command.make_context(name, words[len(name.split()) :]).close()


def test_examples_are_of_commands() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()


def test_each_setting_has_a_subject() -> None:
    settings = [option.keyword for kind in (NewApplication, ServerSettings) for option in options_of(kind)]
    assert set(settings) <= SUBJECT_OF.keys()


def test_the_help_names_the_policies_and_losses_that_there_are() -> None:
    assert (tuple(POLICIES), tuple(LOSSES)) == (POLICY_NAMES, LOSS_NAMES)
    assert all(name in help_of("app create") for name in (*POLICIES, *LOSSES))
