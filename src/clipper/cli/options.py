"""Options that several commands share, and functions that read their texts."""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from clipper.base.tls.expiry import day, duration
from clipper.errors import Conflict, InvalidArgument
from clipper.settings.fields import check_range, range_text
from clipper.settings.replicas import read_scale
from clipper.settings.texts import number_of, read_json_or_file
from clipper.settings.variables import read_env_file

T = TypeVar("T")

# In a help of 80 columns, longer names would break in the middle of a word.
MAX_METAVAR = 16
# The heading, in a command's help, of the options that nearly all commands have.
_OF_ALL = "Options of all commands"


def parser(read: Callable[[str], T]) -> Callable[[str], T]:
    """Make a parser for typer that reports the InvalidArgument of ``read`` as wrong usage."""

    def parse(text: str) -> T:
        try:
            return read(text)
        except InvalidArgument as error:
            raise typer.BadParameter(str(error)) from error

    return parse


# A text, @FILE, or - for standard input.
parse_json = parser(read_json_or_file)
parse_scale = parser(read_scale)


def parse_parameters(texts: list[str] | None) -> dict[str, Any]:
    """Read texts such as ``eta=0.05`` into values by name; a value that is not JSON is a text."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is not a parameter: expected NAME=VALUE, e.g. eta=0.05")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def names_starting(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Make a completion for a shell."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def one_of(kind: Any, *names: str, **settings: Any) -> Any:
    """Make an option with the values of a ``Literal``. Typer's own message about a wrong value is pydantic's."""
    values = get_args(kind)

    def parse(text: str) -> str:
        if text not in values:
            raise typer.BadParameter(f"{text!r} is not valid: expected {', '.join(values)}")
        return text

    metavar = "|".join(values)
    if len(metavar) > MAX_METAVAR:
        metavar = "NAME"
        settings["help"] = f"{settings['help']} One of {', '.join(values[:-1])} or {values[-1]}."
    return typer.Option(*names, parser=parse, autocompletion=names_starting(values), metavar=metavar, **settings)


def number(
    kind: type[int] | type[float],
    *names: str,
    least: float | None = None,
    most: float | None = None,
    above: bool = False,
    **settings: Any,
) -> Any:
    """Make an option whose value is a number within a range. Typer's own message about a wrong value is pydantic's.

    ``above``: whether ``least`` itself is out of the range.
    """
    noun = "a whole number" if kind is int else "a number"
    expected = noun if least is None else f"{noun} {range_text(least, most, above=above)}"

    def parse(given: str | float) -> float:
        # Typer also passes the default through this.
        value = number_of(kind, given) if isinstance(given, str) else given
        if value is None:
            raise typer.BadParameter(f"{given!r:.100} is not {noun}: expected {expected}")
        if least is not None:
            try:
                check_range("it", value, least, most, above=above)
            except InvalidArgument as error:
                raise typer.BadParameter(str(error)) from error
        return value

    metavar = "N" if least is None or most is None else f"{least:.16g}..{most:.16g}"
    return typer.Option(*names, **{"parser": parse, "metavar": metavar, **settings})


def _folder(path: Path | None) -> Path | None:
    if path is not None and path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file: expected a folder")
    return path


def output_file(path: Path | None) -> Path | None:
    """Check that a file can be written, before the work that produces its content."""
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"{path} cannot be written: it is a folder, expected a file")
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path} cannot be written: there is no folder {path.parent}")
    return path


Home = Annotated[
    Path | None,
    typer.Option(
        help="The server's directory.",
        metavar="FOLDER",
        rich_help_panel=_OF_ALL,
        envvar="CLIPPER_HOME",
        show_default="~/.clipper",
        readable=False,
        callback=_folder,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="The server's management address, e.g. http://host:1338, instead of --home.",
        metavar="URL",
        rich_help_panel=_OF_ALL,
    ),
]
QueryUrl = Annotated[
    str | None,
    typer.Option(help="The query port's address, e.g. http://host:1337, instead of --home or --url: needs no token."),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write only the result, as JSON, to standard output, and an error as JSON to standard error.",
        rich_help_panel=_OF_ALL,
    ),
]

HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html", help="Write a page with charts to this file.", metavar="FILE", readable=False, callback=output_file
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="The query port's key. Other users can read it on a command line, but not in the environment.",
        envvar="CLIPPER_API_KEY",
        metavar="KEY",
        show_default="none",
    ),
]

EnvFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--env-file",
        help="A file of lines NAME=VALUE, like --env, which goes before it. May be repeated.",
        metavar="FILE",
        readable=False,
        show_default="none",
    ),
]


def read_env_files(paths: list[Path] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths or ():
        try:
            found |= read_env_file(path.read_bytes().decode())
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{path} cannot be read: {error}", param_hint="'--env-file'") from error
        except InvalidArgument as error:
            raise typer.BadParameter(f"{path}: {error}", param_hint="'--env-file'") from error
    return found


PolicyParameters = Annotated[
    list[str] | None,
    typer.Option(
        "--policy-parameter", help="A parameter of the policy, e.g. eta=0.05. May be repeated.", metavar="NAME=VALUE"
    ),
]
LossParameters = Annotated[
    list[str] | None,
    typer.Option(
        "--loss-parameter", help="A parameter of the loss, e.g. range=10. May be repeated.", metavar="NAME=VALUE"
    ),
]


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def confirm(question: str, unasked: str, *, yes: bool) -> None:
    """Ask on a terminal whether to go on, and end the command if the answer is no. ``unasked``: the error's text where
    nobody can be asked; the error also says to add ``--yes``. Raises Conflict if standard input is no terminal, so that
    nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Conflict(unasked)
    typer.confirm(question, abort=True)


_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_past(text: str) -> float:
    """Read ``2026-05-01T12:00``, local without a time zone, or ``12h`` ago; return seconds since 1970."""
    return _parse(text, -1, "12h for 12 hours ago")


def parse_future(text: str) -> float:
    """Read a time as ``parse_past`` does, except that ``90d`` is in 90 days."""
    return _parse(text, 1, "90d for 90 days from now")


def _parse(text: str, direction: int, example: str) -> float:
    if span := _SPAN.fullmatch(text):
        return time.time() + direction * float(span[1]) * _SECONDS[span[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a time: expected e.g. 2026-05-01T12:00, or {example}") from error


Expires = Annotated[
    float | None,
    typer.Option(
        "--expires",
        help="Refuse it after this time, e.g. 90d for 90 days from now, or 2027-01-31.",
        parser=parse_future,
        metavar="TIME",
        show_default="never",
    ),
]


def shown_time(at_s: float) -> str:
    """Show a time in seconds since 1970 as this machine's clock does."""
    return f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S}"


def until(at_s: float | None) -> str:
    """Return when something expires and how much time is left, for a table."""
    if at_s is None:
        return "never"
    left_s = at_s - time.time()
    return f"in {duration(left_s)} ({day(at_s)})" if left_s > 0 else f"expired {day(at_s)}"
