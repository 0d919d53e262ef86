"""The server that a command is about, and the options that name it."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import typer

from clipper.cli.options import AsJson, Home, Url
from clipper.cli.output import Output
from clipper.client import Clipper


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


class Commands(typer.Typer):
    """The commands of a noun. A command's parameter ``server`` stands for the options --home, --url and --json."""

    def __init__(self, help: str, **looks: Any) -> None:  # noqa: A002
        super().__init__(help=help, no_args_is_help=True, **looks)

    def command(self, name: str | None = None, **looks: Any) -> Callable[[Any], Any]:
        add = super().command(name, **looks)

        def decorate(command: Any) -> Any:
            add(_with_options(command) if "server" in inspect.signature(command).parameters else command)
            return command

        return decorate


_OPTIONS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, kind, default in (("home", Home, None), ("url", Url, None), ("as_json", AsJson, False))
]


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*, home: Path | None, url: str | None, as_json: bool, **values: Any) -> None:
        with ExitStack() as closing:
            command(server=Server(home, url, as_json, closing), **values)

    own = [each for each in inspect.signature(command).parameters.values() if each.name != "server"]
    parameters = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own), *_OPTIONS]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    return run
