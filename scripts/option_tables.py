"""Write the tables of options in docs/cli.md: ``python scripts/option_tables.py``. A test holds the page against it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from clipper.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
# Documented once, at the top of the page.
COMMON = {"--home", "--url", "--json", "--help"}
_HEAD = "| | meaning | default |\n|---|---|---|\n"


def commands(command: Any = None, name: str = "clipper") -> Iterator[tuple[str, Any]]:
    """Every command by its name, such as ``clipper app create``."""
    command = command or get_command(cli)
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, child in below.items():
        yield from commands(child, f"{name} {word}")


def heading(name: str, command: Any) -> str:
    words = [(p.metavar or p.name).upper() for p in command.params if p.param_type_name == "argument"]
    return " ".join([name, *words])


def table(command: Any) -> str:
    """The table of a command's parameters; empty if it has none of its own."""
    rows = [_row(parameter) for parameter in command.params if not COMMON & set(parameter.opts)]
    return _HEAD + "".join(rows) if rows else ""


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names, meaning = f"`{(parameter.metavar or parameter.name).upper()}`", parameter.help
    else:
        names, meaning = ", ".join(f"`{name}`" for name in parameter.opts), parameter.help
    for opposite in parameter.secondary_opts:
        meaning = f"{meaning.rstrip('.')}; `{opposite}` undoes it."
    return f"| {names} | {meaning} | {_default(parameter)} |\n"


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", None)
    text = shown if isinstance(shown, str) else ""
    if not text and shown is not False and parameter.default is not None and parameter.default is not False:
        text = f"`{parameter.default}`"
    variable = getattr(parameter, "envvar", None)
    return f"`{variable}`, else {text or 'none'}" if variable else text


def with_tables(page: str) -> str:
    """The page with each command's table in its section, and otherwise as it is."""
    known = {heading(*item): item[1] for item in commands()}
    head, *sections = re.split(r"(?m)^(?=## `clipper )", page)
    written = [head]
    for section in sections:
        command = known[section.split("`")[1]]
        without = re.sub(r"(?m)^\| \| meaning \| default \|\n(\|.*\n)*", "\0", section, count=1)
        new = table(command)
        if "\0" not in without and new:
            title, _, rest = without.partition("\n")
            sentence, _, more = rest.strip("\n").partition("\n\n")
            without = f"{title}\n\n{sentence}\n\n\0\n" + (f"{more}\n\n" if more else "")
        written.append(without.replace("\0", new))
    return "".join(written)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
