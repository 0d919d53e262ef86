"""docs/cli.md against the commands themselves."""

from typing import Any

from scripts.option_tables import PAGE, commands, heading, with_tables


def options(command: Any) -> set[str]:
    return {text for p in command.params if p.param_type_name == "option" for text in p.opts}


def test_the_page_has_every_command_and_no_other() -> None:
    headings = [line.strip("#` ") for line in PAGE.read_text().splitlines() if line.startswith("## `")]
    assert sorted(headings) == sorted(heading(*item) for item in commands())


def test_the_tables_of_the_page_are_what_the_commands_say() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "run python scripts/option_tables.py"


# They start one, or read and write its files.
ASK_NO_SERVER = {
    "clipper start",
    "clipper restart",
    "clipper serve",
    "clipper log export",
    "clipper app whatif",
    "clipper backup",
    "clipper secret set",
    "clipper secret list",
    "clipper secret delete",
    "clipper restore",
    "clipper cluster list",
    "clipper cluster clean",
}
# They ask a cluster, which several homes may share.
OF_NO_HOME = {"clipper cluster list", "clipper cluster clean"}


def test_every_command_has_the_common_options() -> None:
    lacking = [
        name
        for name, command in commands()
        if not {"--json"} | (set() if name in OF_NO_HOME else {"--home"}) <= options(command)
        or ("--url" in options(command)) == (name in ASK_NO_SERVER)
    ]
    assert lacking == []
