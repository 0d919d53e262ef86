"""docs/cli.md against the commands themselves."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from clipper.cli.main import cli

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
# Documented once, at the top.
COMMON = {"--home", "--url", "--json", "--help"}


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, child in below.items():
        yield from commands(child, f"{name} {word}")


def sections() -> dict[str, str]:
    """Heading such as ``clipper app create NAME`` to the text below it."""
    parts = re.split(r"^## `(.+)`$", DOCS.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def heading(name: str, command: Any) -> str:
    words = [(p.metavar or p.name).upper() for p in command.params if p.param_type_name == "argument"]
    return " ".join([name, *words])


def options(command: Any) -> set[str]:
    return {text for p in command.params if p.param_type_name == "option" for text in p.opts}


def test_the_page_has_every_command_and_no_other() -> None:
    assert sections().keys() == {heading(*item) for item in commands(get_command(cli), "clipper")}


def test_each_section_has_every_option_and_no_other() -> None:
    wrong = {}
    for name, command in commands(get_command(cli), "clipper"):
        text = sections()[heading(name, command)]
        documented = set(re.findall(r"`(--?[a-z][a-z-]*)`", "\n".join(re.findall(r"^\| (`-.*?) \|", text, re.M))))
        if documented != options(command) - COMMON:
            wrong[name] = documented ^ (options(command) - COMMON)
    assert wrong == {}


# They start one, or read and write its files.
ASK_NO_SERVER = {
    "clipper start",
    "clipper serve",
    "clipper log export",
    "clipper app whatif",
    "clipper backup",
    "clipper restore",
}


def test_every_command_has_the_common_options() -> None:
    lacking = [
        name
        for name, command in commands(get_command(cli), "clipper")
        if not {"--home", "--json"} <= options(command) or ("--url" in options(command)) == (name in ASK_NO_SERVER)
    ]
    assert lacking == []
