"""``clipper logs``."""

import sys
import time
from contextlib import suppress
from typing import Annotated

import msgspec
import typer

from clipper.api.schemas import MAX_LOG_LINES, Logs
from clipper.cli.names import OfVersion, complete_models, model_and_version
from clipper.cli.options import number
from clipper.cli.output import printable
from clipper.cli.server import Server

# On average a line is shown half of this late. A look costs the server less than a millisecond.
FOLLOW_EVERY_S = 0.5


def logs(
    server: Server,
    model: Annotated[
        str | None,
        typer.Argument(
            help="The model's name, NAME:VERSION or a replica's id; without it, the server's own logs are shown.",
            autocompletion=complete_models,
        ),
    ] = None,
    version: OfVersion = None,
    replica: Annotated[str | None, typer.Option(help="One replica's id, e.g. digits:2#1.")] = None,
    log: Annotated[
        str | None, typer.Option("--log", help="One of the server's logs, e.g. supervisor, worker-0, access-0, slow-0.")
    ] = None,
    lines: Annotated[
        int, number(int, "--lines", "-n", help="How many lines of each log.", least=1, most=MAX_LOG_LINES)
    ] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then show further lines, until Ctrl-C.")] = False,
) -> None:
    """Show the last lines of the logs of a model's containers, or of the server."""
    if model is not None and log is not None:
        raise typer.BadParameter("is a log of the server, not of a model: leave out one of both", param_hint="--log")
    if model is None and (version is not None or replica is not None):
        raise typer.BadParameter("need the name of a model: give it as MODEL", param_hint="--version, --replica")

    if model is not None and "#" in model:  # a replica's id
        model, replica = model.partition("#")[0], model
    if model is not None:
        model, version = model_and_version(model, version)

    def read(after: Logs | None = None) -> Logs:
        if model is None:
            return server.clipper.server_logs(log, lines=lines, after=after)
        return server.clipper.logs(model, version=version, replica=replica, lines=lines, after=after)

    found = read()
    if not follow:
        texts = [line for name, tail in sorted(found.lines.items()) for line in (f"==> {name} <==", *tail)]
        server.out.done(found, "\n".join(texts) or f"{model} has no logs: it has no replicas")
        return
    shown = ""
    with suppress(KeyboardInterrupt):  # how one stops it
        while True:
            shown = _show(found, shown, server.out.as_json)
            time.sleep(FOLLOW_EVERY_S)
            found = read(found)


def _show(found: Logs, shown: str, as_json: bool) -> str:
    """Write lines as they come. ``shown`` names the log of the previous line; return the log of the last line."""
    for name, lines in sorted(found.lines.items()):
        for line in lines:
            if as_json:
                sys.stdout.write(msgspec.json.encode({"log": name, "line": line}).decode() + "\n")
                continue
            if name != shown:
                sys.stdout.write(f"==> {printable(name)} <==\n")
                shown = name
            sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()
    return shown
