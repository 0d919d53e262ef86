"""Options that are made of settings: one of each kind, as typer makes them."""

from typing import Annotated, Any, Literal

import pytest
import typer
from msgspec import Struct
from typer.testing import CliRunner

from clipper.cli.settings import Given, options_of, with_settings
from clipper.settings.fields import Setting
from clipper.settings.texts import read_count_or_none


class Inner(Struct, frozen=True):
    size: Annotated[int, Setting("Of inner.", least=1, keyword="inner_size")] = 3


class Things(Struct, frozen=True):
    text: Annotated[str | None, Setting("A text.", default="nobody's")] = None
    share: Annotated[float, Setting("A share.", least=0, most=1)] = 0.5
    colour: Annotated[Literal["red", "blue"], Setting("A colour.")] = "red"
    bound: Annotated[int | None, Setting("A bound.", read=read_count_or_none, option="limit", metavar="N|none")] = 7
    works: Annotated[bool, Setting("Whether.")] = False
    kept: Annotated[bool, Setting("Do not keep.", option="no-keeping")] = True
    inner: Inner = Inner()
    unsaid: int = 0


def run(*arguments: str, **how: Any) -> tuple[Given | None, str]:
    """A command's arguments, and its output."""
    seen: list[Given] = []
    app = typer.Typer()

    @app.command()
    @with_settings(things=options_of(Things, **how))
    def command(name: str, *, things: Given, last: int = 1) -> None:
        seen.append(things)

    result = CliRunner().invoke(app, ["someone", *arguments], env={"COLUMNS": "200"})
    return seen[0] if seen else None, result.output


def test_what_is_given_is_read_by_its_type() -> None:
    options = "--text a --share 0.25 --colour blue --limit 9 --works --no-keeping --inner-size 4"
    given, _ = run(*options.split())
    assert given == {
        "text": "a", "share": 0.25, "colour": "blue", "bound": 9, "works": True, "kept": False, "inner_size": 4
    }  # fmt: skip


def test_what_is_not_given_has_the_structs_default_or_is_left_out() -> None:
    assert run()[0] == {"share": 0.5, "colour": "red", "bound": 7, "inner_size": 3}
    assert run(to_change=True)[0] == {}


def test_none_is_a_value_and_no_is_another() -> None:
    assert run("--limit", "none", "--no-works", to_change=True)[0] == {"bound": None, "works": False}


def test_only_those_that_are_wanted() -> None:
    assert run(only=("share", "bound"))[0] == {"share": 0.5, "bound": 7}
    assert run(without=("share", "bound"))[0] == {"colour": "red", "inner_size": 3}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--limit soon", "Invalid value for '--limit': 'soon' is not a number: expected a number, or none"),
        ("--share 2", "'--share'"),
        ("--colour green", "'green' is not valid: expected red, blue"),
        ("--unsaid 1", "No such option: --unsaid"),
    ],
)
def test_what_cannot_be_is_wrong_usage(arguments: str, says: str) -> None:
    given, told = run(*arguments.split())
    assert given is None
    assert says in " ".join(told.replace("│", " ").split())


def test_help_shows_meanings_and_defaults() -> None:
    _, told = run("--help")
    for text in ("A share.", "[default: 0.5]", "[default: (nobody's)]", "[default: 7]", "N|none", "red|blue"):
        assert text in told
    _, told = run("--help", to_change=True)
    assert "A share." in told and "0.5]" not in told and "nobody" not in told
