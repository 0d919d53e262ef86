"""The server that a command is about, and the options that name it."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from clipper.cli.examples import EXAMPLES
from clipper.cli.options import AsJson, Home, Url
from clipper.cli.output import Output, write_error
from clipper.client import Clipper
from clipper.errors import ClipperError


class Server:
    """The server of ``--url`` or ``--home``. ``out`` prints the command's results."""

    def __init__(self, home: Path | None, url: str | None, as_json: bool, closing: ExitStack) -> None:
        self.home, self.url, self.out = home, url, Output(as_json)
        self._closing = closing

    @cached_property
    def clipper(self) -> Clipper:
        """The client, which connects on first use and is closed when the command ends."""
        return self.connect()

    def connect(self, api_key: str | None = None, query_url: str | None = None) -> Clipper:
        return self._closing.enter_context(Clipper.connect(self.url, self.home, api_key=api_key, query_url=query_url))


class _Helpful:
    """Names the kinds of values in a command's help as people do; typer writes <str>, <list[str]> and <bool>."""

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)  # type: ignore[misc]  # of the command that this is mixed into
        for each in parameters:
            if isinstance(each, TyperArgument):
                each.metavar = each.metavar or (each.name or "").upper()
                each.display_type = lambda ctx: ""  # type: ignore[method-assign]
            elif isinstance(each, TyperOption) and each.metavar is None:
                each.metavar = "" if each.is_flag else "TEXT"
        return parameters


class _Command(_Helpful, TyperCommand):
    """A command whose help ends with examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if lines := EXAMPLES.get(ctx.command_path.partition(" ")[2]):
            self.epilog = "\n\n".join(("Examples:", *(f"$ {line}" for line in lines)))
        super().format_help(ctx, formatter)


class _Group(_Helpful, TyperGroup):
    pass


class Commands(typer.Typer):
    """The commands of a noun. A command's parameter ``server`` stands for the options --home, --url and --json."""

    def __init__(self, help: str, **looks: Any) -> None:  # noqa: A002
        # Click passes the names of the help option on to subcommands.
        names = {"help_option_names": ["-h", "--help"]}
        super().__init__(cls=_Group, help=help, no_args_is_help=True, context_settings=names, **looks)

    def command(self, name: str | None = None, **looks: Any) -> Callable[[Any], Any]:
        add = super().command(name, cls=_Command, **looks)

        def decorate(command: Any) -> Any:
            parameters = inspect.signature(command).parameters
            if "server" in parameters:
                add(_with_options(command))
            else:
                add(_with_errors_as_json(command) if parameters.get("as_json") else command)
            return command

        return decorate


_OPTIONS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, kind, default in (("home", Home, None), ("url", Url, None), ("as_json", AsJson, False))
]


def _with_errors_as_json(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*, as_json: bool, **values: Any) -> None:
        try:
            command(as_json=as_json, **values)
        except ClipperError as error:
            write_error(error, as_json=as_json)
            raise typer.Exit(1) from error

    return run


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*, home: Path | None, url: str | None, as_json: bool, **values: Any) -> None:
        with ExitStack() as closing:
            try:
                command(server=Server(home, url, as_json, closing), **values)
            except ClipperError as error:
                write_error(error, as_json=as_json)
                raise typer.Exit(1) from error

    own = [each for each in inspect.signature(command).parameters.values() if each.name != "server"]
    parameters = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own), *_OPTIONS]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    return run
