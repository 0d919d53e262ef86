"""``clipper logs``."""

from typing import Annotated

import typer

from clipper.cli.options import AsJson, Home, OfVersion, Url
from clipper.cli.output import Output
from clipper.client import Clipper


def logs(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: OfVersion = None,
    replica: Annotated[str | None, typer.Option(help="One replica's id, e.g. digits:2#1.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines of each log.", min=1, max=10_000)] = 100,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the last lines of the logs of a model's containers."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.logs(model, version=version, replica=replica, lines=lines)
    texts = [line for name, tail in sorted(found.lines.items()) for line in (f"==> {name} <==", *tail)]
    Output(as_json).done(found, "\n".join(texts) or f"{model} has no logs: it has no replicas")
